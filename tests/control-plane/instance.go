// A control plane under check: another process of this binary, seen from outside as a test harness sees it.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

type instance struct {
	command *exec.Cmd
	stdin   io.Closer
	lines   *bufio.Scanner
	ended   chan struct{}

	ready  readyLine
	config *rest.Config
	client kubernetes.Interface
}

// launch returns once the control plane has said that it is ready.
func launch(ctx context.Context, flags ...string) (*instance, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(executable, append([]string{"up"}, flags...)...)
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	// Not a StdoutPipe, because waiting for the end would close that one under the reader.
	stdout, output, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	command.Stdout = output
	err = command.Start()
	_ = output.Close() // The child has its own.
	if err != nil {
		return nil, err
	}
	i := &instance{command: command, stdin: stdin, lines: bufio.NewScanner(stdout), ended: make(chan struct{})}
	go func() {
		_ = command.Wait() // The state of the process says what there is to say.
		close(i.ended)
	}()
	if err := i.connect(ctx); err != nil {
		i.abandon()
		return nil, err
	}
	return i, nil
}

func (i *instance) connect(ctx context.Context) error {
	if err := i.readLine(ctx, &i.ready); err != nil {
		return err
	}
	if !i.ready.Ready {
		return errors.New("its first line does not say that it is ready")
	}
	config, err := clientcmd.BuildConfigFromFlags("", i.ready.Kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1 // The checks measure the control plane, not the patience of their client.
	i.config = config
	i.client, err = kubernetes.NewForConfig(config)
	return err
}

// readLine reads the next JSON line of standard output, which must have exactly the fields of into.
func (i *instance) readLine(ctx context.Context, into any) error {
	read := make(chan error, 1)
	go func() {
		if !i.lines.Scan() {
			read <- errors.Join(io.ErrUnexpectedEOF, i.lines.Err())
			return
		}
		decoder := json.NewDecoder(bytes.NewReader(i.lines.Bytes()))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(into); err != nil {
			read <- fmt.Errorf("%w in the line %s", err, i.lines.Bytes())
			return
		}
		read <- nil
	}()
	select {
	case err := <-read:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (i *instance) signal(signal os.Signal) error { return i.command.Process.Signal(signal) }

// wait returns how long the end took, and fails unless it came with the code and left nothing.
func (i *instance) wait(ctx context.Context, code int) (time.Duration, error) {
	began := time.Now()
	select {
	case <-i.ended:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	took := time.Since(began)
	if got := i.command.ProcessState.ExitCode(); got != code {
		return 0, fmt.Errorf("ended with code %d, not %d", got, code)
	}
	if left := processesOf(i.ready.Dir); len(left) > 0 {
		return 0, fmt.Errorf("left processes: %v", left)
	}
	if _, err := os.Lstat(i.ready.Dir); !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("left %s", i.ready.Dir)
	}
	return took, nil
}

// abandon is for a check that failed halfway.
func (i *instance) abandon() {
	_ = i.signal(syscall.SIGTERM) // An error means that it has ended.
	<-i.ended
}

// processesOf finds the components of a control plane by its directory, which all of them have in their flags.
func processesOf(dir string) map[string]int {
	found := map[string]int{}
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(content), dir+"/") {
			continue // It ended meanwhile, or is not ours.
		}
		words := strings.Split(string(content), "\x00")
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && len(words) > 1 {
			found[words[1]] = pid
		}
	}
	return found
}
