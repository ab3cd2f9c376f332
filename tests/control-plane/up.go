// The up subcommand: flags, files and signals around the supervisor, and the JSON lines a test reads.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

const (
	defaultNodes = 3
	// defaultRestartDelay is about what a kubelet needs to notice that a static API server pod died.
	defaultRestartDelay = time.Second
)

type upOptions struct {
	dir            string
	keep           bool
	kubeconfig     string
	nodes          int
	stockRates     bool
	restartDelay   time.Duration
	stopOnStdinEOF bool
}

// The lines on standard output, one JSON object each.
type (
	readyLine struct {
		Ready      bool    `json:"ready"`
		Kubeconfig string  `json:"kubeconfig"`
		Server     string  `json:"server"`
		AuditLog   string  `json:"auditLog"`
		Dir        string  `json:"dir"`
		Seconds    float64 `json:"seconds"`
	}
	restartedLine struct {
		Restarted bool    `json:"restarted"`
		Seconds   float64 `json:"seconds"`
	}
	failedLine struct {
		Failed string `json:"failed"`
		Reason string `json:"reason"`
		Log    string `json:"log"`
	}
)

func report(line any) {
	encoded, err := json.Marshal(line)
	if err != nil {
		panic(err) // The lines are plain structs of strings and numbers.
	}
	fmt.Printf("%s\n", encoded)
}

func secondsSince(began time.Time) float64 {
	return time.Since(began).Round(time.Millisecond).Seconds()
}

func parseUp(args []string) (upOptions, error) {
	var o upOptions
	flags := flag.NewFlagSet("control-plane up", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "", "keep all files in this `directory`, which must be new or empty (default a temporary one)")
	flags.BoolVar(&o.keep, "keep", false, "leave the directory and the kubeconfig behind at the stop")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "write the admin's kubeconfig to this new `file` (default kubeconfig in the directory)")
	flags.IntVar(&o.nodes, "nodes", defaultNodes, "how many Node objects to create")
	flags.BoolVar(&o.stockRates, "stock-rates", false, "leave the client rates of controllers and scheduler as they are in real clusters (20/s per controller)")
	flags.DurationVar(&o.restartDelay, "restart-delay", defaultRestartDelay, "how long the API server stays away on SIGUSR1")
	flags.BoolVar(&o.stopOnStdinEOF, "stop-on-stdin-eof", false, "stop when standard input ends, as it does when the process that holds the other end of the pipe dies")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("up takes no arguments, only flags: %q", flags.Args())
	case o.nodes < 0:
		err = fmt.Errorf("--nodes %d is less than none", o.nodes)
	case o.restartDelay < 0:
		err = fmt.Errorf("--restart-delay %s is in the past", o.restartDelay)
	}
	return o, err
}

func runUp(args []string) int {
	began := time.Now()
	// Children are tied to the thread that starts them, and only the main thread is sure to live as long as we do.
	runtime.LockOSThread()

	options, err := parseUp(args)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		return complain(err, exitUsage)
	}
	stop, restart := watchSignals(options.stopOnStdinEOF)
	executable, err := os.Executable()
	if err != nil {
		return complain(err, exitFailed)
	}
	plan, err := prepare(options)
	if errors.Is(err, errUsage) {
		return complain(err, exitUsage)
	}
	if err != nil {
		return complain(err, exitFailed)
	}
	s := &supervisor{
		setup:      plan,
		executable: executable,
		running:    map[string]*process{},
		ended:      make(chan *process),
		stop:       stop,
		restart:    restart,
	}
	code := supervise(s, began)
	if !options.keep {
		if err := plan.remove(); err != nil {
			return complain(err, exitFailed)
		}
	}
	return code
}

// supervise returns when everything is stopped.
func supervise(s *supervisor, began time.Time) int {
	defer s.stopAll()
	err := s.bringUp()
	if err == nil {
		report(readyLine{
			Ready:      true,
			Kubeconfig: s.setup.kubeconfig,
			Server:     s.setup.server,
			AuditLog:   s.setup.layout.auditLog(),
			Dir:        s.setup.layout.dir,
			Seconds:    secondsSince(began),
		})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go keepHeartbeats(ctx, s.setup.client, s.setup.nodes)
		err = s.serve()
	}
	if failed, ok := errors.AsType[failure](err); ok {
		// The logs are about to be removed, so the report takes their end along.
		report(failedLine{failed.component, failed.reason, tail(s.setup.layout.log(failed.component))})
		return exitFailed
	}
	return exitOK
}

// watchSignals returns what asks to stop and what asks to restart the API server.
func watchSignals(stopOnStdinEOF bool) (stop, restart chan os.Signal) {
	// Room for the request and for one more, which ends the patience.
	stop = make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	restart = make(chan os.Signal, 1)
	signal.Notify(restart, syscall.SIGUSR1)
	// When the reader of our output dies a write must fail, not end us: there are files to remove.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if stopOnStdinEOF {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // A pipe that fails has ended as well.
			stop <- syscall.SIGTERM
		}()
	}
	return stop, restart
}

func complain(err error, code int) int {
	fmt.Fprintln(os.Stderr, "control-plane up:", err)
	return code
}
