// The supervisor: brings the components up, restarts the API server when told to, and takes all of them down again.
package main

import (
	"context"
	"errors"
	"os"
	"time"
)

const (
	// startLimit bounds each step of the start. All of it takes a few seconds on two idle cores; this is for machines
	// that build something at the same time.
	startLimit = 60 * time.Second

	// stopGrace is for each component, so the worst stop takes 4 × 2 s. Nothing of theirs is kept: all that a longer
	// grace would buy is that clients with open watches keep them for up to 15 s more.
	stopGrace = 2 * time.Second
)

// errStopRequested ends the control plane in the ordinary way.
var errStopRequested = errors.New("stop requested")

// A failure is a component that died, or that did not do what was waited for.
type failure struct{ component, reason string }

func (f failure) Error() string { return f.component + ": " + f.reason }

type supervisor struct {
	setup      *setup
	executable string

	running map[string]*process
	ended   chan *process

	stop, restart <-chan os.Signal
}

// bringUp returns once a pod can be created and has nodes to go to. It must be called on the main thread, as must all
// that starts a process.
func (s *supervisor) bringUp() error {
	for _, c := range []component{s.setup.etcd, s.setup.apiServer} {
		if err := s.start(c); err != nil {
			return err
		}
	}
	if err := s.await(apiServerName, apiReady(s.setup.client)); err != nil {
		return err
	}
	for _, c := range []component{s.setup.controllerManager, s.setup.scheduler} {
		if err := s.start(c); err != nil {
			return err
		}
	}
	err := s.await(apiServerName, func(ctx context.Context) error {
		return createNodes(ctx, s.setup.client, s.setup.nodes)
	})
	if err != nil {
		return err
	}
	return s.await(controllerManagerName, defaultServiceAccount(s.setup.client))
}

// serve returns when the control plane has to end, with the reason.
func (s *supervisor) serve() error {
	for {
		if _, err := undisturbed(s, s.restart); err != nil {
			return err
		}
		if err := s.restartAPIServer(); err != nil {
			return err
		}
	}
}

func (s *supervisor) start(c component) error {
	p, err := startProcess(s.executable, c, s.setup.layout.log(c.name), s.ended)
	if err != nil {
		return failure{c.name, err.Error()}
	}
	s.running[c.name] = p
	return nil
}

// await runs one step of the start aside. The component named is the one to blame when the step fails.
func (s *supervisor) await(component string, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- step(ctx) }()
	failed, err := undisturbed(s, done)
	if failed != nil {
		return failure{component, failed.Error()}
	}
	return err
}

// undisturbed waits for something, and fails as soon as the control plane has to end.
func undisturbed[T any](s *supervisor, awaited <-chan T) (came T, err error) {
	for {
		select {
		case came = <-awaited:
			return came, nil
		case <-s.stop:
			return came, errStopRequested
		case p := <-s.ended:
			if !p.wanted {
				return came, failure{p.component.name, p.command.ProcessState.String()}
			}
		}
	}
}

// restartAPIServer is a crash, not a polite stop: that is what a client has to live through.
func (s *supervisor) restartAPIServer() error {
	began := time.Now()
	s.running[apiServerName].kill()
	if _, err := undisturbed(s, time.After(s.setup.restartDelay)); err != nil {
		return err
	}
	if err := s.start(s.setup.apiServer); err != nil {
		return err
	}
	if err := s.await(apiServerName, apiReady(s.setup.client)); err != nil {
		return err
	}
	report(restartedLine{Restarted: true, Seconds: secondsSince(began)})
	return nil
}

// stopOrder goes from the clients to what they depend on: an API server without its etcd hangs.
var stopOrder = []string{schedulerName, controllerManagerName, apiServerName, etcdName}

// stopAll returns when nothing runs any more. One more request to stop ends the patience.
func (s *supervisor) stopAll() {
	impatient, over := make(chan struct{}), make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-s.stop:
			close(impatient)
		case <-over:
		}
	}()
	for _, name := range stopOrder {
		if p, ok := s.running[name]; ok {
			p.stop(stopGrace, impatient)
		}
	}
}
