// Package deploy checks the files of deploy/, and those of the release, with the code
// that will read it: Helm's own, the types of Kubernetes and of the Prometheus
// operator, the compose reference implementation, BuildKit's checks, Prometheus'
// parser and goreleaser's configuration. It is a module of its own, because the
// bridge needs none of them.
package deploy
