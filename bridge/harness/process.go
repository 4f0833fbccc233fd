package harness

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

// Process is a program that is started, ended and started again. It is safe for
// concurrent use; a program that this one starts dies with it.
type Process struct {
	name string
	bin  string
	log  string
	out  *os.File // where it writes instead of the log file; nil: there

	mu    sync.Mutex
	cmd   *exec.Cmd
	gone  chan struct{} // closed when cmd has ended
	lives []timeline.Life
}

// NewProcess makes a process that does not run yet. log is the file for its output.
func NewProcess(name, bin, log string) *Process { return &Process{name: name, bin: bin, log: log} }

// Usage is what a program has used so far.
type Usage struct {
	CPU time.Duration
	RSS int64 // bytes resident now
}

// errRunning and errGone are programming errors of a plan.
var (
	errRunning = errors.New("runs already")
	errGone    = errors.New("does not run")
)

// Start starts the program. What it writes goes behind what the log file holds.
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
		_ = cmd.Wait() // the state tells
		p.ended(cmd)
		close(gone)
	}()
	return nil
}

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

// LogTo has what the program writes go to a file instead of its log, such as the
// end of a pipe, from the next start on.
func (p *Process) LogTo(f *os.File) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = f
}

// signal sends a signal, after noting something of the present life.
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

// Kill ends the program as kill -9 does, and waits until it is gone.
func (p *Process) Kill() error {
	gone, err := p.signal(syscall.SIGKILL, func(l *timeline.Life) { l.Killed = true })
	if err != nil {
		return err
	}
	<-gone
	return nil
}

// Stop tells the program to end and waits until it has, or the context ends.
func (p *Process) Stop(ctx context.Context) (timeline.Life, error) {
	gone, err := p.signal(syscall.SIGTERM, func(l *timeline.Life) { l.Asked = true })
	if err != nil {
		return timeline.Life{}, err
	}
	return p.wait(ctx, gone)
}

// Wait waits until the program ends by itself, or the context ends.
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

// Pause has the program stand still, as a suspended machine does.
func (p *Process) Pause() error {
	_, err := p.signal(signalPause, func(l *timeline.Life) { l.Pauses = append(l.Pauses, timeline.Span{From: time.Now()}) })
	return err
}

// Resume lets the program go on.
func (p *Process) Resume() error {
	_, err := p.signal(signalResume, func(l *timeline.Life) {
		if n := len(l.Pauses); n > 0 && l.Pauses[n-1].To.IsZero() {
			l.Pauses[n-1].To = time.Now()
		}
	})
	return err
}

// Running reports whether the program runs, or stands still.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// Lives gives every run so far. The slice is the caller's.
func (p *Process) Lives() []timeline.Life {
	p.mu.Lock()
	defer p.mu.Unlock()
	lives := slices.Clone(p.lives)
	for i := range lives {
		lives[i].Pauses = slices.Clone(lives[i].Pauses)
	}
	return lives
}

// Log gives what the program has written, all runs together.
func (p *Process) Log() (string, error) {
	b, err := os.ReadFile(p.log)
	return string(b), err
}

// end makes sure that the program is gone.
func (p *Process) end() {
	if err := p.Kill(); err != nil && !errors.Is(err, errGone) {
		panic(err) // a process that cannot be killed is not to be left behind silently
	}
}
