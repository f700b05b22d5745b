package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/configs"
	"github.com/quorate/quorate/discovery"
	"github.com/quorate/quorate/store/disk"
)

// exitError ends the process with a code. Its text, if any, is printed.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }
func (e *exitError) ExitCode() int { return e.code }

// serve runs a server until it is told to stop, or has to. Errors carry the code to exit with.
func serve(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	cfg, notices, err := configs.Parse(args, environ)
	switch {
	case errors.Is(err, configs.ErrHelp):
		return configs.WriteHelp(stdout)
	case errors.Is(err, configs.ErrVersion):
		return writeVersion(stdout)
	}
	log := newLogger(cfg, stderr)
	for _, n := range notices {
		logNotice(log, n)
	}
	if err != nil {
		return refuse(log, err)
	}
	for _, n := range cfg.Warnings() {
		logNotice(log, n)
	}
	ctx, signals := untilSignal(ctx, log)
	if err := serveConfig(ctx, cfg, log); err != nil {
		var failure *discovery.Failure
		if errors.As(err, &failure) {
			for _, line := range failure.Lines {
				logLine(log, line)
			}
		} else {
			log.Error(err.Error())
		}
		return &exitError{code: 1}
	}
	signals.end()
	return nil
}

// refuse turns an error of the configuration into what the operator sees.
func refuse(log hclog.Logger, err error) error {
	var refused *configs.Error
	if !errors.As(err, &refused) {
		return err
	}
	if refused.Exit == configs.ExitUsage {
		return &exitError{code: refused.Exit, text: refused.Error() + "\n" + configs.ShortUsage}
	}
	log.Error(refused.Error())
	if refused.Hint != "" {
		log.Error(refused.Hint)
	}
	return &exitError{code: refused.ExitCode()}
}

// serveConfig looks at the data directory and starts what it, or the configuration, says.
func serveConfig(ctx context.Context, cfg *configs.Config, log hclog.Logger) error {
	state, err := disk.Inspect(cfg.DataDir, cfg.WALDir)
	if err != nil {
		return err
	}
	firstStart := state == disk.Empty
	for _, line := range cfg.EffectiveValues(firstStart) {
		log.Info(line)
	}
	raiseFileLimit(log)
	switch state {
	case disk.Member:
		log.Info("the server is already initialized as member before, starting as member...")
		if cfg.Discovery != "" {
			log.Warn(fmt.Sprintf("discovery token ignored since a cluster has already been initialized. Valid log found at %q", cfg.MemberDir()))
		}
	case disk.Proxy:
		log.Info("the server is already initialized as proxy before, starting as proxy...")
		return runProxy(ctx, cfg, log, nil)
	default:
		if cfg.Proxy != configs.ProxyOff {
			return runProxy(ctx, cfg, log, nil)
		}
	}

	var ls listeners
	defer func() {
		for _, l := range append(ls.client, ls.peer...) {
			l.Close()
		}
	}()
	if ls.client, err = openListeners(cfg.ListenClientURLs); err != nil {
		return err
	}
	if ls.peer, err = openListeners(cfg.ListenPeerURLs); err != nil {
		return err
	}
	server := newServer(cfg, log)
	served := make(chan error, len(ls.client))
	for _, l := range ls.client {
		go func() { served <- server.Serve(l) }()
		log.Info("serving clients", "address", l.Addr().String())
	}
	err = runMember(ctx, cfg, firstStart, log, ls, server)
	var failure *discovery.Failure
	if errors.As(err, &failure) && failure.Fallback && cfg.DiscoveryFallback == configs.FallbackProxy {
		log.Info(discovery.FallbackNotice)
		return runProxy(ctx, cfg, log, &ls)
	}
	return err
}

func openListeners(urls configs.URLs) ([]net.Listener, error) {
	var out []net.Listener
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil {
			return out, err
		}
		l, err := net.Listen("tcp", u.Host)
		if err != nil {
			return out, err
		}
		out = append(out, l)
	}
	return out, nil
}

// raiseFileLimit lets this process have as many open files, and so connections, as it may.
func raiseFileLimit(log hclog.Logger) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		log.Warn("the limit of open files is not known", "error", err)
		return
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		log.Warn("the limit of open files was not raised", "error", err)
	}
	log.Debug("limit of open files", "files", limit.Cur, "processors", runtime.GOMAXPROCS(0))
}

func newLogger(cfg *configs.Config, stderr io.Writer) hclog.Logger {
	options := &hclog.LoggerOptions{Output: stderr, Level: hclog.Info, TimeFormat: "2006-01-02T15:04:05.000000Z07:00"}
	if cfg != nil {
		options.Level = hclog.LevelFromString(cfg.LogLevel)
		options.JSONFormat = cfg.LogFormat == configs.LogJSON
	}
	return hclog.New(options)
}

func logNotice(log hclog.Logger, n configs.Notice) {
	if n.Warn {
		log.Warn(n.Text)
		return
	}
	log.Info(n.Text)
}

func logLine(log hclog.Logger, line discovery.LogLine) {
	switch line.Level {
	case discovery.LevelCritical, discovery.LevelError:
		log.Error(line.Text)
	case discovery.LevelWarning:
		log.Warn(line.Text)
	default:
		log.Info(line.Text)
	}
}

// stopSignals ends the process by the signal that it was stopped with, so that whoever started it
// sees why it ended.
type stopSignals struct {
	got chan os.Signal
}

// untilSignal returns a context that ends with the first SIGTERM or SIGINT.
func untilSignal(ctx context.Context, log hclog.Logger) (context.Context, stopSignals) {
	ctx, cancel := context.WithCancel(ctx)
	incoming := make(chan os.Signal, 1)
	signal.Notify(incoming, syscall.SIGTERM, syscall.SIGINT)
	s := stopSignals{got: make(chan os.Signal, 1)}
	go func() {
		sig := <-incoming
		log.Info(fmt.Sprintf("received %s signal, shutting down...", sig))
		s.got <- sig
		signal.Stop(incoming) // a second one ends the process at once
		cancel()
	}()
	return ctx, s
}

// end ends this process by the signal that was received, if there was one. The first process of a
// container cannot end so; it exits with 0.
func (s stopSignals) end() {
	select {
	case sig := <-s.got:
		if os.Getpid() == 1 {
			return
		}
		signal.Reset(sig)
		if number, ok := sig.(syscall.Signal); ok {
			_ = syscall.Kill(os.Getpid(), number)
			select {} // the signal is on its way
		}
	default:
	}
}
