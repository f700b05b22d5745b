package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/quorate/quorate/cmd/quorate/cli"
	"github.com/quorate/quorate/configs"
	"github.com/quorate/quorate/discovery"
	"github.com/quorate/quorate/store/disk"
)

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
	ctx, signals := untilSignal(ctx, log)
	defer signals.stop()
	err = serveConfig(ctx, cfg, log)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // told to stop while it was waiting for something
	}
	if err != nil {
		var failure *discovery.Failure
		if errors.As(err, &failure) {
			for _, line := range failure.Lines {
				logLine(log, line)
			}
		} else {
			log.Error(err.Error())
		}
		return &cli.ExitError{Code: configs.ExitRefused}
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
		return &cli.ExitError{Code: refused.Exit, Text: hidePasswords(refused.Error()) + "\n" + configs.ShortUsage}
	}
	log.Error(refused.Error())
	if refused.Hint != "" {
		log.Error(refused.Hint)
	}
	return &cli.ExitError{Code: refused.Exit}
}

// serveConfig looks at the data directory and starts what it, or the configuration, says.
func serveConfig(ctx context.Context, cfg *configs.Config, log hclog.Logger) error {
	state, err := disk.Inspect(cfg.DataDir, cfg.WALDir)
	if err != nil {
		return err
	}
	firstStart := state == disk.Empty
	if state == disk.Proxy { // a member is told when it opens its directory
		for _, name := range disk.UnknownEntries(cfg.DataDir) {
			log.Warn(fmt.Sprintf("found invalid file/dir %s under data dir %s (Ignore this if you are upgrading etcd)", name, cfg.DataDir))
		}
	}
	for _, line := range cfg.EffectiveValues(firstStart) {
		log.Info(line)
	}
	certificates, err := loadCertificates(cfg, log)
	if err != nil {
		return err
	}
	defer certificates.watch()()
	defer saveMemory()()
	limits, err := newLimits(cfg, log)
	if err != nil {
		return err
	}
	switch state {
	case disk.Member:
		log.Info("the server is already initialized as member before, starting as member...")
		if cfg.Discovery != "" {
			log.Warn(fmt.Sprintf("discovery token ignored since a cluster has already been initialized. Valid log found at %q", cfg.MemberDir()))
		}
	case disk.Proxy:
		log.Info("the server is already initialized as proxy before, starting as proxy...")
		return startProxy(ctx, cfg, log, certificates, limits)
	default:
		if cfg.Proxy != configs.ProxyOff {
			return startProxy(ctx, cfg, log, certificates, limits)
		}
	}

	ls, err := openListeners(cfg, log, certificates, limits, true)
	if err != nil {
		return err
	}
	defer ls.close()
	server := newServer(cfg, log, limits)
	certificates.register(server.Registry())
	ls.serve(log, server.Serve, server.Handler())
	err = runMember(ctx, cfg, firstStart, log, certificates, ls, server)
	var failure *discovery.Failure
	if errors.As(err, &failure) && failure.Fallback && cfg.DiscoveryFallback == configs.FallbackProxy {
		log.Info(discovery.FallbackNotice)
		return fallBack(ctx, cfg, log, certificates, limits, ls, server.Server)
	}
	return err
}

func newLogger(cfg *configs.Config, stderr io.Writer) hclog.Logger {
	options := &hclog.LoggerOptions{Output: withoutPasswords{stderr}, Level: hclog.Info, TimeFormat: "2006-01-02T15:04:05.000000Z07:00"}
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
	incoming chan os.Signal
	got      chan os.Signal
	done     chan struct{}
}

// untilSignal returns a context that ends with the first SIGTERM or SIGINT.
func untilSignal(ctx context.Context, log hclog.Logger) (context.Context, stopSignals) {
	ctx, cancel := context.WithCancel(ctx)
	s := stopSignals{incoming: make(chan os.Signal, 1), got: make(chan os.Signal, 1), done: make(chan struct{})}
	signal.Notify(s.incoming, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		defer cancel()
		select {
		case sig := <-s.incoming:
			log.Info(fmt.Sprintf("received %s signal, shutting down...", sig))
			s.got <- sig
			signal.Stop(s.incoming) // a second one ends the process at once
		case <-s.done:
		}
	}()
	return ctx, s
}

// stop ends the waiting for signals.
func (s stopSignals) stop() {
	signal.Stop(s.incoming)
	close(s.done)
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
