// Package deploy checks what deploy/ holds with the code that will read it:
// Helm's own, Kubernetes' own types, the compose reference implementation and
// goreleaser's configuration. It is a module of its own, because the bridge needs
// none of them.
package deploy
