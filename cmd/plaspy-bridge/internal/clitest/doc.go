// Package clitest runs command lines in tests: in the test's own process, or in a
// process of its own, for which the test binary becomes the program.
package clitest
