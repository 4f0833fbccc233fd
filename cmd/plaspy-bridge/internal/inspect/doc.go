// Package inspect has the commands that ask a running bridge and change nothing:
// health, status and why.
package inspect
