// Package machine breaks the machine under the programs that package harness runs: the
// clock, the disk, the file descriptors, and a server of a cluster. It needs no privileges
// and does not affect other programs.
//
// # Implementation
//
// [Build] compiles the programs under test with a standard library that is patched in four
// functions: time.Now, os.File.Write with WriteAt, os.File.Sync, and syscall.Statfs. The
// patched functions read a file before they do their work. Both the program and the test
// map the file into memory, so that a read is a load and a write by the test has an effect
// at once. A [Control] is that file. The programs are otherwise as deployed, and their
// sources do not know of the faults.
//
// A patch finds its function by the text of the lines that it replaces. If a version of Go
// has other lines, Build returns an error that names them. A fault that is silently not
// injected would prove nothing.
//
// # Faults
//
// A clock that jumps changes only the wall clock, as settimeofday does. The monotonic
// clock, and with it every timer, continues.
//
// A slow disk delays each write and each sync of a file below one folder. A full disk
// accepts as many bytes as are left, the last write in part, and then returns ENOSPC. The
// patched statfs reports the same. Files that exist can be opened, renamed and removed, and
// their content can be read.
//
// With its files limited ([LimitFiles]) a program keeps its open files and cannot open
// more.
//
// # Requirements
//
// The tests check more than package judge does. The bridge reports that it is not ready if
// it has not polled a device for longer than an acknowledgement may take. It recovers by
// itself when the fault ends, needs little memory, and logs a repeated failure once. The
// bucket of last locations has the same content as the stream. A test also fails if the
// fault had no effect.
//
// The package is for Linux only.
package machine
