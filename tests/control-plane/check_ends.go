// Checks of how a control plane restarts and ends, on purpose and otherwise.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func (i *instance) checkRestart(ctx context.Context) (string, error) {
	before, err := i.podUIDs(ctx)
	if err != nil {
		return "", err
	}
	old := processesOf(i.ready.Dir)[apiServerName]
	if err := i.signal(syscall.SIGUSR1); err != nil {
		return "", err
	}
	var line restartedLine
	if err := i.readLine(ctx, &line); err != nil {
		return "", err
	}
	if !line.Restarted || line.Seconds < defaultRestartDelay.Seconds() {
		return "", fmt.Errorf("said %+v", line)
	}
	if processesOf(i.ready.Dir)[apiServerName] == old {
		return "", errors.New("the API server is the process it was")
	}
	after, err := i.podUIDs(ctx)
	if err != nil {
		return "", err
	}
	if len(before) == 0 || !maps.Equal(before, after) {
		return "", fmt.Errorf("the pods were %v and are %v", before, after)
	}
	// Controllers and scheduler must have found it again.
	if err := i.scale(ctx, deployedPods+2); err != nil {
		return "", err
	}
	return fmt.Sprintf("%.1f s with the pause, %d pods kept", line.Seconds, len(after)), nil
}

func (i *instance) podUIDs(ctx context.Context) (map[string]types.UID, error) {
	pods, err := i.client.CoreV1().Pods(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	uids := map[string]types.UID{}
	for _, pod := range pods.Items {
		uids[pod.Name] = pod.UID
	}
	return uids, nil
}

func (i *instance) checkStop(ctx context.Context) (string, error) {
	// A watch that nobody ends is what keeps a polite API server from stopping.
	watch, err := i.client.CoreV1().Pods(metav1.NamespaceAll).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	defer watch.Stop()
	if err := i.signal(syscall.SIGTERM); err != nil {
		return "", err
	}
	took, err := i.wait(ctx, exitOK)
	if err != nil {
		return "", err
	}
	if took > stopGoal {
		return "", fmt.Errorf("took %s", took)
	}
	return fmt.Sprintf("%.1f s", took.Seconds()), nil
}

// checkRefusals needs no control plane to start: that is the point.
func checkRefusals(ctx context.Context) (string, error) {
	executable, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "control-plane-check-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, nil, privateFile); err != nil {
		return "", err
	}
	for _, flags := range [][]string{{"--dir", dir}, {"--kubeconfig", precious}, {"--nodes", "-1"}, {"surplus"}} {
		said, err := exec.CommandContext(ctx, executable, append([]string{"up"}, flags...)...).CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitUsage {
			return "", fmt.Errorf("up %s: %v: %s", strings.Join(flags, " "), err, said)
		}
	}
	if _, err := os.Lstat(precious); err != nil {
		return "", err
	}
	return "a directory in use, a kubeconfig in use, nonsense", nil
}

func checkStdinEOF(ctx context.Context) (string, error) {
	i, err := launch(ctx, "--stop-on-stdin-eof")
	if err != nil {
		return "", err
	}
	defer i.abandon()
	if err := i.stdin.Close(); err != nil {
		return "", err
	}
	took, err := i.wait(ctx, exitOK)
	return fmt.Sprintf("%.1f s", took.Seconds()), err
}

func checkFailure(ctx context.Context) (string, error) {
	i, err := launch(ctx)
	if err != nil {
		return "", err
	}
	defer i.abandon()
	if err := syscall.Kill(processesOf(i.ready.Dir)[schedulerName], syscall.SIGKILL); err != nil {
		return "", err
	}
	var line failedLine
	if err := i.readLine(ctx, &line); err != nil {
		return "", err
	}
	if line.Failed != schedulerName || line.Log == "" {
		return "", fmt.Errorf("said %+v", line)
	}
	if _, err := i.wait(ctx, exitFailed); err != nil {
		return "", err
	}
	return line.Failed + ", " + line.Reason, nil
}

func checkKill(ctx context.Context) (string, error) {
	// A directory of our own, as the one of a killed supervisor stays behind.
	dir, err := os.MkdirTemp("", "control-plane-check-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	i, err := launch(ctx, "--dir", dir)
	if err != nil {
		return "", err
	}
	defer i.abandon()
	children := slices.Sorted(maps.Keys(processesOf(dir)))
	if len(children) != len(stopOrder) {
		return "", fmt.Errorf("has the processes %v", children)
	}
	if err := i.signal(syscall.SIGKILL); err != nil {
		return "", err
	}
	<-i.ended
	err = poll(ctx, func() error {
		if left := processesOf(dir); len(left) > 0 {
			return fmt.Errorf("left processes: %v", left)
		}
		return nil
	})
	return strings.Join(children, ", ") + " went along", err
}
