// The check subcommand: runs real control planes and counts what holds.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"
)

const (
	// checkLimit bounds each check. The slowest ones start a control plane.
	checkLimit = 90 * time.Second
	// startGoal and stopGoal are what README.md promises.
	startGoal = 20 * time.Second
	stopGoal  = 20 * time.Second
)

// A tally prints a line per check and keeps the count.
type tally struct{ passed, failed int }

// run returns whether the check passed. A check returns what is worth telling about its success.
func (t *tally) run(name string, check func(context.Context) (string, error)) bool {
	ctx, cancel := context.WithTimeout(context.Background(), checkLimit)
	defer cancel()
	detail, err := check(ctx)
	if err != nil {
		t.failed++
		fmt.Printf("FAIL  %s: %v\n", name, err)
		return false
	}
	t.passed++
	fmt.Printf("ok    %s: %s\n", name, detail)
	return true
}

func runCheck(args []string) int {
	if len(args) > 0 {
		fmt.Fprintln(os.Stderr, "control-plane check: takes no arguments")
		return exitUsage
	}
	// The control planes under check die with this process, see startProcess.
	runtime.LockOSThread()

	var t tally
	checkWhole(&t)
	checkEnds(&t)
	fmt.Printf("%d passed, %d failed\n", t.passed, t.failed)
	if t.failed > 0 {
		return exitFailed
	}
	return exitOK
}

// checkWhole takes one control plane through its life.
func checkWhole(t *tally) {
	var i *instance
	defer func() {
		if i != nil {
			i.abandon()
		}
	}()
	started := t.run("a start takes less than 20 s", func(ctx context.Context) (detail string, err error) {
		i, err = launch(ctx)
		if err != nil {
			return "", err
		}
		if i.ready.Seconds > startGoal.Seconds() {
			return "", fmt.Errorf("took %.1f s", i.ready.Seconds)
		}
		return fmt.Sprintf("%.1f s", i.ready.Seconds), nil
	})
	if !started {
		return
	}
	t.run("nodes are ready, sized, spread over zones and keep their heartbeat", i.checkNodes)
	t.run("a Deployment of three becomes three pods on nodes", i.checkDeployment)
	t.run("a finished Job goes away, and its pod with it", i.checkJob)
	t.run("a namespace gets its service account and CA, and goes away", i.checkNamespace)
	t.run("a disruption budget sees its pods", i.checkDisruption)
	t.run("cluster roles are aggregated", i.checkAggregation)
	t.run("a token Secret gets its token", i.checkTokenSecret)
	t.run("an autoscaler looks at its target", i.checkAutoscaler)
	t.run("RBAC decides", i.checkRBAC)
	t.run("a ResourceQuota on a count is kept", i.checkQuota)
	t.run("the audit log has every request once", i.checkAudit)
	t.run("SIGUSR1 restarts the API server and nothing is lost", i.checkRestart)
	t.run("SIGTERM under an open watch leaves no process and no file", i.checkStop)
}

// checkEnds goes through the other ways in which a control plane ends.
func checkEnds(t *tally) {
	t.run("it refuses what it would overwrite", checkRefusals)
	t.run("the end of standard input stops it", checkStdinEOF)
	t.run("a component that dies is named and ends it", checkFailure)
	t.run("SIGKILL of the supervisor leaves no process", checkKill)
}
