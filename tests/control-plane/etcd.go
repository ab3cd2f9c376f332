// The etcd subcommand: one member that keeps its data only as long as a test runs.
package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"

	"go.etcd.io/etcd/server/v3/embed"
)

// runEtcd serves until the process is killed. It has no polite stop: nothing of its data outlives the control plane.
func runEtcd(args []string) int {
	flags := flag.NewFlagSet(etcdName, flag.ExitOnError)
	dir := flags.String("data-dir", "", "where to keep the data")
	client := flags.String("client-address", "", "host:port for clients")
	peer := flags.String("peer-address", "", "host:port for peers; there are none, but etcd insists")
	_ = flags.Parse(args) // ExitOnError: it does not return one.

	config := embed.NewConfig()
	config.Name = "test"
	config.Dir = *dir
	config.ListenClientUrls = urlOf(*client)
	config.AdvertiseClientUrls = config.ListenClientUrls
	config.ListenPeerUrls = urlOf(*peer)
	config.AdvertisePeerUrls = config.ListenPeerUrls
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	// A test wants speed, and its data is worth nothing after a power cut.
	config.UnsafeNoFsync = true
	// Alone, a member has nobody to wait for. Waiting the stock second before it elects itself is most of its start.
	config.TickMs = 10
	config.ElectionMs = 100
	config.EnableGRPCGateway = false
	// The supervisor holds the ports with sockets of its own; see ports.go.
	config.SocketOpts.ReusePort = true
	config.LogLevel = "warn"
	// Only etcd's own command line has this default. Zero would warn of every request.
	config.WarningUnaryRequestDuration = embed.DefaultWarningUnaryRequestDuration

	server, err := embed.StartEtcd(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return exitFailed
	}
	fmt.Fprintln(os.Stderr, "etcd: ", <-server.Err())
	return exitFailed
}

func urlOf(address string) []url.URL {
	return []url.URL{{Scheme: "http", Host: address}}
}
