// Package schema describes every subject and message of the bridge, as an
// AsyncAPI 3.1 document and as JSON Schemas.
//
// Subjects come from [publisher.Subjects], as in the code, with any prefix. Bodies and headers are the schemas in schemas.json and
// headers.json. They have the same meaning in JSON Schema draft 7, which
// AsyncAPI uses, and in draft 2020-12: they use only keywords of both, and none
// beside a $ref. Tests validate the messages of a real run against them.
//
// The schemas of events describe only the fields that the bridge itself sets or
// checks. For fields copied from the API, see the API's documentation.
package schema
