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

func prepare(o upOptions) (*setup, error) {
	l, err := newLayout(o.dir)
	if err != nil {
		return nil, err
	}
	s := &setup{layout: l, nodes: o.nodes, restartDelay: o.restartDelay}
	if s.kubeconfig, err = kubeconfigPath(o.kubeconfig, l); err != nil {
		return nil, errors.Join(err, os.RemoveAll(l.dir))
	}
	if err := s.fill(o.stockRates); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

// kubeconfigPath refuses a file that exists, as somebody may still need it.
func kubeconfigPath(wanted string, l layout) (string, error) {
	if wanted == "" {
		return l.adminKubeconfig(), nil
	}
	path, err := filepath.Abs(wanted)
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return "", errors.Join(fmt.Errorf("--kubeconfig %s: name a file that does not exist yet", path), err)
	}
	return path, nil
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
