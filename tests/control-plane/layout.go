// Where the files of one control plane lie.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	loopback = "127.0.0.1"
	// Tokens and keys are for the user who started the control plane only.
	privateFile fs.FileMode = 0o600
	privateDir  fs.FileMode = 0o700
)

type layout struct{ dir string }

func (l layout) caCertificate() string         { return filepath.Join(l.dir, "ca.crt") }
func (l layout) servingCertificate() string    { return filepath.Join(l.dir, "apiserver.crt") }
func (l layout) servingKey() string            { return filepath.Join(l.dir, "apiserver.key") }
func (l layout) serviceAccountKey() string     { return filepath.Join(l.dir, "service-accounts.key") }
func (l layout) tokens() string                { return filepath.Join(l.dir, "tokens.csv") }
func (l layout) auditPolicy() string           { return filepath.Join(l.dir, "audit-policy.yaml") }
func (l layout) auditLog() string              { return filepath.Join(l.dir, "audit.log") }
func (l layout) etcdData() string              { return filepath.Join(l.dir, "etcd") }
func (l layout) adminKubeconfig() string       { return filepath.Join(l.dir, "kubeconfig") }
func (l layout) kubeconfig(user string) string { return filepath.Join(l.dir, user+".kubeconfig") }
func (l layout) logs() string                  { return filepath.Join(l.dir, "logs") }
func (l layout) log(component string) string   { return filepath.Join(l.logs(), component+".log") }

// newLayout makes the directory. One that already holds something is refused: it is removed as a whole at the stop.
func newLayout(dir string) (layout, error) {
	if dir == "" {
		made, err := os.MkdirTemp("", "control-plane-")
		if err != nil {
			return layout{}, err
		}
		dir = made
	} else if err := os.MkdirAll(dir, privateDir); err != nil {
		return layout{}, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return layout{}, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return layout{}, err
	}
	if len(entries) > 0 {
		return layout{}, fmt.Errorf("%w: --dir %s is not empty; name a new directory", errUsage, dir)
	}
	l := layout{dir: dir}
	return l, os.Mkdir(l.logs(), privateDir)
}
