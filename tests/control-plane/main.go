// control-plane is a real Kubernetes control plane in one binary, for tests: etcd, the API server, the
// controllers and the scheduler as subcommands, and `up`, which runs them together on loopback.
package main

import (
	"fmt"
	"os"
	_ "time/tzdata" // CronJobs name time zones, and a test machine may have no zoneinfo.

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	// The logging and metrics plug-ins that the stock main functions of Kubernetes register too.
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

const usage = `usage: control-plane COMMAND [flags]

  up                       run a whole control plane on loopback until stopped (up --help lists its flags)
  check                    prove on the real thing that up does what its README says
  etcd                     one etcd member that never waits for the disk
  kube-apiserver           the stock API server
  kube-controller-manager  the stock controller manager
  kube-scheduler           the stock scheduler
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(exitUsage)
	}
	args := os.Args[2:]
	switch command := os.Args[1]; command {
	case "up":
		os.Exit(runUp(args))
	case "check":
		os.Exit(runCheck(args))
	case etcdName:
		os.Exit(runEtcd(args))
	// Each of these takes over the signals of the process as soon as it is built, so only the one that runs is.
	case apiServerName:
		os.Exit(runStock(apiserver.NewAPIServerCommand(), args))
	case controllerManagerName:
		os.Exit(runStock(controllermanager.NewControllerManagerCommand(), args))
	case schedulerName:
		os.Exit(runStock(scheduler.NewSchedulerCommand(), args))
	case "help", "-h", "--help":
		fmt.Print(usage)
	default:
		fmt.Fprintf(os.Stderr, "control-plane: no such command: %s\n\n%s", command, usage)
		os.Exit(exitUsage)
	}
}

// Exit codes of every subcommand of our own.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func runStock(command *cobra.Command, args []string) int {
	command.SetArgs(args)
	return cli.Run(command)
}
