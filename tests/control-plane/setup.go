// Everything that is decided and written before the first process starts.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"
)

type setup struct {
	layout       layout
	kubeconfig   string
	server       string
	nodes        int
	restartDelay time.Duration
	// client is the supervisor's own.
	client kubernetes.Interface

	etcd, apiServer, controllerManager, scheduler component
}

// errUsage marks what the one who called us can mend.
var errUsage = errors.New("wrong use")

func prepare(o upOptions) (*setup, error) {
	kubeconfig, err := filepath.Abs(o.kubeconfig)
	if err != nil {
		return nil, err
	}
	if o.kubeconfig != "" {
		// Before the directory is made: a refusal must leave things as they were.
		if err := refuseExisting(kubeconfig); err != nil {
			return nil, err
		}
	}
	l, err := newLayout(o.dir)
	if err != nil {
		return nil, err
	}
	if o.kubeconfig == "" {
		kubeconfig = l.adminKubeconfig()
	}
	s := &setup{layout: l, kubeconfig: kubeconfig, nodes: o.nodes, restartDelay: o.restartDelay}
	if err := s.fill(o.stockRates); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

// refuseExisting keeps us from overwriting a kubeconfig that somebody may still need.
func refuseExisting(kubeconfig string) error {
	_, err := os.Lstat(kubeconfig)
	if err == nil {
		return fmt.Errorf("%w: --kubeconfig %s exists already; name a new file", errUsage, kubeconfig)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (s *setup) fill(stockRates bool) error {
	var ports [3]*reservation
	for i := range ports {
		var err error
		if ports[i], err = reservePort(); err != nil {
			return err
		}
	}
	etcdClient, etcdPeer, serving := ports[0], ports[1], ports[2]
	s.server = "https://" + serving.address
	s.etcd = etcdComponent(s.layout, etcdClient, etcdPeer)
	s.apiServer = apiServerComponent(s.layout, etcdClient, serving)
	s.controllerManager = controllerManagerComponent(s.layout, stockRates)
	s.scheduler = schedulerComponent(s.layout, stockRates)

	ca, err := writeCertificates(s.layout)
	if err != nil {
		return err
	}
	accesses, err := writeTokens(s.layout.tokens(), s.server, ca)
	if err != nil {
		return err
	}
	for user, path := range map[string]string{
		adminUser:             s.kubeconfig,
		controllerManagerUser: s.layout.kubeconfig(controllerManagerUser),
		schedulerUser:         s.layout.kubeconfig(schedulerUser),
	} {
		if err := accesses[user].writeKubeconfig(path, user); err != nil {
			return err
		}
	}
	if err := writeAuditPolicy(s.layout); err != nil {
		return err
	}
	s.client, err = kubernetes.NewForConfig(accesses[supervisorUser].restConfig())
	return err
}

// remove leaves nothing behind of what prepare and the components wrote.
func (s *setup) remove() error {
	err := os.Remove(s.kubeconfig)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(s.layout.dir))
}
