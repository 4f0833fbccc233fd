package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"plaspy-bridge/bridge/harness/timeline"
)

// Process is a program that can be started again after its end. It is safe for concurrent
// use.
type Process struct {
	name string
	log  string

	mu    sync.Mutex
	bin   string
	out   *os.File // receives the output instead of the log file, unless it is nil
	cmd   *exec.Cmd
	gone  chan struct{} // closed when cmd has ended
	lives []timeline.Life
}

// New makes a process that does not run yet. log is the file for its output.
func New(name, bin, log string) *Process { return &Process{name: name, bin: bin, log: log} }

// Usage is the CPU time that a program has used, how often its present threads went
// to sleep, and its memory.
type Usage struct {
	CPU      time.Duration
	Switches int64 // voluntary context switches
	RSS      int64 // bytes resident now
}

// errRunning and errGone are errors of the plan of a test.
var (
	errRunning = errors.New("runs already")
	errGone    = errors.New("does not run")
)

// Start starts the program, which appends its output to the log file.
func (p *Process) Start(args, env []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return fmt.Errorf("%s: %w", p.name, errRunning)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	out := log
	if p.out != nil {
		out = p.out
	}
	cmd := exec.Command(p.bin, args...) //nolint:noctx // it outlives any one test step; Kill ends it
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = env, out, out, dieWithParent()
	from := time.Now()
	err = cmd.Start()
	if e := log.Close(); e != nil && err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	gone := make(chan struct{})
	p.cmd, p.gone = cmd, gone
	p.lives = append(p.lives, timeline.Life{Span: timeline.Span{From: from}})
	go func() {
		_ = cmd.Wait() // the state has the result
		p.ended(cmd)
		close(gone)
	}()
	return nil
}

// ended notes the end of a life.
func (p *Process) ended(cmd *exec.Cmd) {
	p.mu.Lock()
	defer p.mu.Unlock()
	life := &p.lives[len(p.lives)-1]
	life.To = time.Now()
	life.Status = cmd.ProcessState.ExitCode()
	life.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if n := len(life.Pauses); n > 0 && life.Pauses[n-1].To.IsZero() {
		life.Pauses[n-1].To = life.To
	}
	p.cmd = nil
}

// LogTo sends the output of the program to a file instead of its log, such as one end of
// a pipe, from the next start on.
func (p *Process) LogTo(f *os.File) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = f
}

// signal notes something about the current life and sends a signal.
func (p *Process) signal(sig syscall.Signal, note func(*timeline.Life)) (gone <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil, fmt.Errorf("%s: %w", p.name, errGone)
	}
	life := &p.lives[len(p.lives)-1]
	life.RSS = peakRSS(p.cmd.Process.Pid)
	note(life)
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	return p.gone, nil
}

// Kill sends SIGKILL and waits until the program has ended.
func (p *Process) Kill() error {
	gone, err := p.signal(syscall.SIGKILL, func(l *timeline.Life) { l.Killed = true })
	if err != nil {
		return err
	}
	<-gone
	return nil
}

// Stop sends SIGTERM and waits until the program has ended or the context is cancelled.
func (p *Process) Stop(ctx context.Context) (timeline.Life, error) {
	gone, err := p.signal(syscall.SIGTERM, func(l *timeline.Life) { l.Asked = true })
	if err != nil {
		return timeline.Life{}, err
	}
	return p.wait(ctx, gone)
}

// Wait waits until the program ends by itself or the context is cancelled.
func (p *Process) Wait(ctx context.Context) (timeline.Life, error) {
	p.mu.Lock()
	gone := p.gone
	p.mu.Unlock()
	return p.wait(ctx, gone)
}

func (p *Process) wait(ctx context.Context, gone <-chan struct{}) (timeline.Life, error) {
	select {
	case <-gone:
	case <-ctx.Done():
		return timeline.Life{}, fmt.Errorf("%s still runs: %w", p.name, context.Cause(ctx))
	}
	lives := p.Lives()
	return lives[len(lives)-1], nil
}

// Pause suspends the program, as a suspended machine does.
func (p *Process) Pause() error {
	_, err := p.signal(signalPause, func(l *timeline.Life) { l.Pauses = append(l.Pauses, timeline.Span{From: time.Now()}) })
	return err
}

// Resume lets the program continue.
func (p *Process) Resume() error {
	_, err := p.signal(signalResume, func(l *timeline.Life) {
		if n := len(l.Pauses); n > 0 && l.Pauses[n-1].To.IsZero() {
			l.Pauses[n-1].To = time.Now()
		}
	})
	return err
}

// Name returns the name of the process in errors.
func (p *Process) Name() string { return p.name }

// Binary returns the path of the program.
func (p *Process) Binary() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bin
}

// Upgrade makes the next start run another program.
func (p *Process) Upgrade(bin string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bin = bin
}

// PID returns the number of the running process, or 0 if none runs.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Running reports whether the program runs or is suspended.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// Lives returns every run so far. The caller owns the slice.
func (p *Process) Lives() []timeline.Life {
	p.mu.Lock()
	defer p.mu.Unlock()
	lives := slices.Clone(p.lives)
	for i := range lives {
		lives[i].Pauses = slices.Clone(lives[i].Pauses)
	}
	return lives
}

// Log returns the output of all runs.
func (p *Process) Log() (string, error) {
	b, err := os.ReadFile(p.log)
	return string(b), err
}

// LogEnd returns the end of the log for an error message.
func (p *Process) LogEnd() string {
	const most = 2000
	log, _ := p.Log() // the error message is about something else
	if len(log) > most {
		log = "..." + log[len(log)-most:]
	}
	return log
}

// End kills the program if it runs.
func (p *Process) End() {
	if err := p.Kill(); err != nil && !errors.Is(err, errGone) {
		panic(err) // do not leave a process behind silently
	}
}
