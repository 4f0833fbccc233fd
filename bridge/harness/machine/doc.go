// Package machine breaks the machine under the programs that package harness
// runs: its clock, its disk, its file descriptors, and one server of a cluster.
// It needs no privileges and breaks nothing else on the machine.
//
// # How
//
// [Build] makes the programs under test with a standard library in which four
// places look at a file before they do their work: time.Now, os.File.Write with
// WriteAt, os.File.Sync, and syscall.Statfs. The file is mapped into the memory
// of the program and of the test, so that a look costs a load, and what the test
// writes there holds at once. A [Control] is that file. Everything else about the
// programs is as it is deployed; their sources know nothing of it.
//
// The places are found by the text of the lines that they replace. Where a
// version of Go has other lines, Build says which and makes nothing: a fault that
// is silently not injected would prove what is not so.
//
// # What a fault is
//
// A clock that jumps moves the wall clock alone, as settimeofday does. The
// monotonic clock, and with it every timer, goes on.
//
// A slow disk delays each write and each sync of a file below one folder. A full
// one takes as many bytes as are left, the last write in part, and answers ENOSPC
// from there on; statfs tells the same. Files that exist can be opened, renamed
// and removed, and what was written can be read.
//
// With its files limited ([LimitFiles]) a program
// keeps what it has open and can open nothing more.
//
// # What is wanted
//
// Beside what package harness counts: that the bridge says that it is not ready
// where it has not polled a device for longer than an acknowledgement may take,
// that it is at work again by itself once nothing is broken any more, that it
// stays small, that it tells a trouble once and not at every try, and that the
// bucket of last locations has what the stream has. A test fails, too, where the
// fault did not show at the place where it was injected.
//
// Linux only: on other systems the package has nothing but this text.
package machine
