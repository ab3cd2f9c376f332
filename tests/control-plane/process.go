// One child process: started so that it cannot outlive us, stopped within a bound.
package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	// lastLines and lastBytes bound what is told about a component that failed: enough for a panic's first frames.
	lastLines = 30
	lastBytes = 16 << 10
)

type process struct {
	component component
	command   *exec.Cmd
	// ended is closed once the process is gone and reaped.
	ended chan struct{}
	// wanted says that we ended it ourselves.
	wanted bool
}

// startProcess must be called from the main thread: the kernel kills the child when the thread that started it ends.
func startProcess(executable string, c component, logPath string, ended chan<- *process) (*process, error) {
	// A restarted component goes on in the same log.
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, privateFile)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	command := exec.Command(executable, append([]string{c.name}, c.args...)...)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		// A group of its own, so that Ctrl-C in a terminal reaches us alone and the order of the stop is ours.
		Setpgid: true,
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &process{component: c, command: command, ended: make(chan struct{})}
	go func() {
		_ = command.Wait() // The state of the process says what there is to say.
		close(p.ended)
		ended <- p
	}()
	return p, nil
}

// stop asks politely and kills after the grace period, or at once when impatient is closed.
func (p *process) stop(grace time.Duration, impatient <-chan struct{}) {
	p.wanted = true
	_ = p.command.Process.Signal(syscall.SIGTERM) // An error means that it is gone already.
	select {
	case <-p.ended:
		return
	case <-impatient:
	case <-time.After(grace):
	}
	p.kill()
}

func (p *process) kill() {
	p.wanted = true
	_ = p.command.Process.Kill()
	<-p.ended
}

// tail returns the last lines of a log.
func tail(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > lastBytes {
		_, _ = file.Seek(-lastBytes, io.SeekEnd)
	}
	content, err := io.ReadAll(file)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	if len(lines) > lastLines {
		lines = lines[len(lines)-lastLines:]
	}
	return string(bytes.Join(lines, []byte("\n")))
}
