package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
)

// requestTimeout bounds one request of a lock, however short-lived the lock is.
const requestTimeout = 5 * time.Second

func (g *globals) lockCommand() *cobra.Command {
	var opts lockOptions
	var ttl int64
	cmd := &cobra.Command{
		Use:   "lock NAME [--] COMMAND [ARGS...]",
		Short: "Run a command while holding a lock",
		Long: `Run a command while holding a lock: at most one holder at a time, on all machines.

The lock is the key PREFIX/NAME with a time to live, refreshed while the command runs and
removed when it ends. If this program dies or is cut off from the cluster, the lock expires.
If it cannot be refreshed in time, or someone else removed it, the command is killed.

A process that is paused can still go on for a moment after the lock has gone to someone
else. Where that matters, let the protected resource compare the fencing token: it is in
QUORATE_LOCK_INDEX and grows with every holder. QUORATE_LOCK_KEY is the key.

Signals are passed on to the command. The exit code is the command's, 128 plus the number of
the signal that ended it, or 4 if the lock was not taken or was lost.`,
		Example: `  quorate lock backup -- /usr/local/bin/backup --full
  quorate lock --wait 0s nightly -- ./report.sh`,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, command, err := splitCommand(cmd, args)
			if err != nil {
				return usagef("name and command required")
			}
			if ttl < 2 {
				return usagef("--ttl must be at least 2")
			}
			opts.key = path.Join("/", opts.prefix, name)
			opts.ttl = seconds(ttl)
			s, err := g.open(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), g.totalTimeout)
			defer cancel()
			if err := g.connect(ctx, s); err != nil {
				return err
			}
			return s.runLocked(cmd.Context(), opts, command)
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.prefix, "prefix", "/locks", "directory of the lock")
	f.Int64Var(&ttl, "ttl", 30, "seconds after which an abandoned lock expires")
	f.DurationVar(&opts.wait, "wait", -1, "give up if the lock is not free after this time (default: wait for ever)")
	f.Lookup("wait").DefValue = "0s" // not shown
	f.DurationVar(&opts.grace, "kill-after", 10*time.Second, "after a signal, kill a command that has not ended by then; 0 never does")
	f.SetInterspersed(false)
	return cmd
}

type lockOptions struct {
	prefix, key string
	ttl         time.Duration
	wait        time.Duration // negative: for ever
	grace       time.Duration
}

// lock is a lock that is held.
type lock struct {
	keys    *client.Keys
	key     string
	holder  string // the value of the key, different for every lock that ever was
	ttl     time.Duration
	index   uint64    // the fencing token
	expires time.Time // by the local monotonic clock; the cluster's is later
}

var errLockHeld = errors.New("the lock is held by someone else")

// runLocked takes the lock, runs the command and gives the lock back.
func (s *session) runLocked(ctx context.Context, o lockOptions, command []string) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)

	l, err := s.takeLock(ctx, o, signals)
	if err != nil {
		return err
	}
	err = s.runHolding(ctx, l, o, command, signals)
	if released := l.release(); released != nil {
		fmt.Fprintf(s.err, "lock %s was not released and expires within %v: %v\n", l.key, l.ttl, released)
	}
	return err
}

// takeLock waits for the lock, not longer than the options say and not beyond a signal.
func (s *session) takeLock(ctx context.Context, o lockOptions, signals <-chan os.Signal) (*lock, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	defer func() { cancel(nil); <-done }()
	go func() {
		defer close(done)
		var late <-chan time.Time
		if o.wait >= 0 {
			timer := time.NewTimer(max(o.wait, time.Nanosecond))
			defer timer.Stop()
			late = timer.C
		}
		select {
		case sig := <-signals:
			cancel(&ExitError{Code: 128 + int(sig.(syscall.Signal))})
		case <-late:
			cancel(errLockHeld)
		case <-ctx.Done():
		}
	}()

	host, _ := os.Hostname()
	l := &lock{keys: s.keys, key: o.key, ttl: o.ttl, holder: fmt.Sprintf("%s:%d:%s", host, os.Getpid(), rand.Text())}
	for {
		// One attempt is made even with --wait 0.
		index, err := l.try(context.WithoutCancel(ctx))
		cause := context.Cause(ctx)
		var signalled *ExitError
		switch {
		case err == nil && errors.As(cause, &signalled):
			_ = l.release() // nobody runs; at worst it expires
			return nil, signalled
		case err == nil:
			return l, nil
		case !errors.Is(err, api.KeyExists):
			return nil, failure(exitServer, err)
		}
		err = s.waitFree(ctx, o.key, index)
		var unreachable *client.ConnectError
		switch cause := context.Cause(ctx); {
		case errors.Is(cause, errLockHeld):
			return nil, exitf(exitServer, "Error:  lock %s is held by someone else", o.key)
		case cause != nil:
			return nil, failure(exitServer, cause)
		case errors.As(err, &unreachable):
			pause(ctx, time.Second) // members restart now and then; the next attempt tells
		case err != nil:
			return nil, failure(exitServer, err)
		}
	}
}

// try makes one attempt. With api.KeyExists it returns the index at which someone else had the lock.
func (l *lock) try(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	asked := time.Now()
	r, err := l.keys.Create(ctx, l.key, l.holder, l.ttl)
	if err != nil && unknown(err) {
		// Did it happen? A linearizable read tells.
		again, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
		defer cancel()
		found, readErr := l.keys.Get(again, l.key, client.GetOptions{Quorum: true})
		if readErr == nil && value(found.Node) == l.holder {
			r, err = found, nil
		}
	}
	if err != nil {
		var refused *api.Error
		if errors.As(err, &refused) {
			return refused.Index, err
		}
		return 0, err
	}
	l.index, l.expires = r.Node.CreatedIndex, asked.Add(l.ttl)
	return 0, nil
}

// pause waits, but not longer than ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// waitFree returns when the key that existed at index is gone.
func (s *session) waitFree(ctx context.Context, key string, index uint64) error {
	w := s.keys.Watcher(key, client.WatchOptions{AfterIndex: index})
	for {
		r, err := w.Next(ctx)
		if errors.Is(err, api.EventIndexCleared) {
			return nil // try again: perhaps it is gone
		}
		if err != nil {
			return err
		}
		switch r.Action {
		case "delete", "compareAndDelete", "expire":
			return nil
		}
	}
}

// refresh renews the time to live. held is false when the lock is certainly lost; an error alone
// leaves that open.
func (l *lock) refresh(ctx context.Context) (held bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, min(requestTimeout, l.ttl/3))
	defer cancel()
	asked, exist := time.Now(), true
	_, err = l.keys.Set(ctx, l.key, "", client.SetOptions{Refresh: true, TTL: l.ttl, PrevExist: &exist, PrevValue: l.holder})
	switch {
	case err == nil:
		l.expires = asked.Add(l.ttl)
		return true, nil
	case errors.Is(err, api.CompareFailed), errors.Is(err, api.KeyNotFound):
		return false, err
	}
	return true, err
}

// release removes the key if it is still ours.
func (l *lock) release() error {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	_, err := l.keys.Delete(ctx, l.key, client.DeleteOptions{PrevValue: l.holder})
	if errors.Is(err, api.CompareFailed) || errors.Is(err, api.KeyNotFound) {
		return nil
	}
	return err
}

// runHolding runs the command, refreshes the lock meanwhile, and kills the command when the lock is lost.
func (s *session) runHolding(ctx context.Context, l *lock, o lockOptions, command []string, signals <-chan os.Signal) error {
	// The kernel kills the command when the thread that started it dies, so this thread must live.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := exec.Command(command[0], command[1:]...)
	c.Env = append(os.Environ(), "QUORATE_LOCK_KEY="+l.key, "QUORATE_LOCK_INDEX="+strconv.FormatUint(l.index, 10))
	c.Stdin, c.Stdout, c.Stderr = s.in, s.out, s.err
	ownGroup := !isTerminal(s.in)
	c.SysProcAttr = diesWithUs(ownGroup)
	if err := c.Start(); err != nil {
		return exitf(exitUsage, "%v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	end := func(sig syscall.Signal) { signalTo(c.Process.Pid, ownGroup, sig) }

	expiry := time.NewTimer(time.Until(l.expires))
	defer expiry.Stop()
	// Requests run beside everything else, so that a slow member delays neither signals nor the kill.
	refreshing, stop := context.WithCancel(ctx)
	lost := make(chan error, 2)
	refreshed := make(chan time.Time)
	var beside sync.WaitGroup
	defer func() { stop(); beside.Wait() }()
	beside.Go(func() { l.keepFresh(refreshing, refreshed, lost) })
	beside.Go(func() { l.watchLoss(refreshing, lost) })

	var lostErr error
	var kill <-chan time.Time
	cancelled := ctx.Done()
	for {
		select {
		case err := <-ended:
			if lostErr != nil {
				return exitf(exitServer, "Error:  lock %s was lost, the command was killed: %v", l.key, lostErr)
			}
			return commandResult(err)
		case sig := <-signals:
			// The terminal has sent its own signals to the command already.
			if ownGroup || sig != os.Interrupt && sig != syscall.SIGQUIT {
				end(sig.(syscall.Signal))
			}
			if o.grace > 0 && kill == nil {
				kill = time.After(o.grace)
			}
		case <-cancelled:
			cancelled = nil
			end(syscall.SIGTERM)
			kill = time.After(max(o.grace, time.Millisecond))
		case <-kill:
			end(syscall.SIGKILL)
		case expires := <-refreshed:
			expiry.Reset(time.Until(expires))
		case err := <-lost:
			lostErr = err
			end(syscall.SIGKILL)
		case <-expiry.C:
			lostErr = errors.New("it could not be refreshed in time")
			end(syscall.SIGKILL)
		}
	}
}

// watchLoss reports when somebody else touches the key, which is sooner than the next refresh would.
// Refreshing wakes no watcher.
func (l *lock) watchLoss(ctx context.Context, lost chan<- error) {
	w := l.keys.Watcher(l.key, client.WatchOptions{AfterIndex: l.index})
	for {
		r, err := w.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, api.EventIndexCleared):
			return // keepFresh will notice
		case err != nil:
			pause(ctx, time.Second)
		case value(r.Node) != l.holder || r.Node.CreatedIndex != l.index:
			lost <- fmt.Errorf("%s of the key by someone else", r.Action)
			return
		}
	}
}

// keepFresh refreshes the lock three times in its life, and reports each success and the loss.
func (l *lock) keepFresh(ctx context.Context, refreshed chan<- time.Time, lost chan<- error) {
	ticker := time.NewTicker(l.ttl / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		held, err := l.refresh(ctx)
		switch {
		case !held:
			lost <- err
			return
		case err == nil:
			select {
			case refreshed <- l.expires:
			case <-ctx.Done():
				return
			}
		}
	}
}

// commandResult turns the end of a command into ours.
func commandResult(err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return &ExitError{Code: exitCode(exit), Err: err}
	}
	return exitf(exitUsage, "%v", err)
}
