// Package schema describes every subject and message of the bridge, as an
// AsyncAPI 3.0 document and as JSON Schemas.
//
// Subjects come from [publisher.Subjects], so that they are those of the code
// whatever the prefix. Bodies and headers are the schemas in schemas.json and
// headers.json. They say the same under JSON Schema draft 7, which AsyncAPI
// builds on, and under draft 2020-12: no keyword that only one of the two
// knows, and none beside a $ref. Tests hold the messages of a real run against
// them.
//
// A schema of what the bridge publishes promises what the bridge vouches for;
// what it passes on from the API byte for byte is as the API documents it.
package schema
