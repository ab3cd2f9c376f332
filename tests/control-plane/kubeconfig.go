// Who may talk to the API server, and the kubeconfig each of them uses.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// The users have names of their own so that a test can tell their requests apart in the audit log.
const (
	adminUser             = "admin"
	supervisorUser        = "control-plane-supervisor"
	controllerManagerUser = "system:kube-controller-manager"
	schedulerUser         = "system:kube-scheduler"

	// mastersGroup is allowed everything; the two system users get their rights from the stock RBAC bindings.
	mastersGroup = "system:masters"

	// tokenBytes is 128 bits: beyond guessing.
	tokenBytes = 16
)

// An access is what a client needs to be one user of one API server.
type access struct {
	server string
	ca     []byte
	token  string
}

// writeTokens makes a token per user and writes the file from which the API server knows them.
func writeTokens(path, server string, ca []byte) (map[string]access, error) {
	groups := map[string]string{adminUser: mastersGroup, supervisorUser: mastersGroup, controllerManagerUser: "", schedulerUser: ""}
	accesses := map[string]access{}
	var lines strings.Builder
	for user, group := range groups {
		random := make([]byte, tokenBytes)
		_, _ = rand.Read(random) // It never fails: crypto/rand ends the process instead.
		token := hex.EncodeToString(random)
		accesses[user] = access{server: server, ca: ca, token: token}
		// The columns: token, name, uid, groups.
		fmt.Fprintf(&lines, "%s,%s,%s,%s\n", token, user, user, group)
	}
	return accesses, os.WriteFile(path, []byte(lines.String()), privateFile)
}

func (a access) writeKubeconfig(path, user string) error {
	const name = "control-plane"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: a.server, CertificateAuthorityData: a.ca}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: a.token}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: user}
	config.CurrentContext = name
	return clientcmd.WriteToFile(*config, path)
}

func (a access) restConfig() *rest.Config {
	return &rest.Config{
		Host:            a.server,
		BearerToken:     a.token,
		TLSClientConfig: rest.TLSClientConfig{CAData: a.ca},
		// The client must not slow down what it waits for.
		QPS: -1,
	}
}
