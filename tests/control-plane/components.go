// The four components: their names, and the flags with which each of them runs.
package main

import (
	"fmt"
	"os"
	"strings"
)

const (
	etcdName              = "etcd"
	apiServerName         = "kube-apiserver"
	controllerManagerName = "kube-controller-manager"
	schedulerName         = "kube-scheduler"
)

// A component is one process to be.
type component struct {
	name string
	args []string
}

// controllers are the ones that shape what Kitepool sees. Without a kubelet and a cloud the rest has nothing to do,
// and the node lifecycle controller would take the nodes away.
var controllers = []string{
	"clusterrole-aggregation-controller",
	"deployment-controller",
	"disruption-controller",
	"garbage-collector-controller",
	"horizontal-pod-autoscaler-controller",
	"job-controller",
	"namespace-controller",
	"pod-garbage-collector-controller",
	"replicaset-controller",
	"resourcequota-controller",
	"root-ca-certificate-publisher-controller",
	"serviceaccount-controller",
	"serviceaccount-token-controller",
	"ttl-after-finished-controller",
}

// auditPolicy logs every request once, when it is answered. A watch is answered when it ends.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
`

const (
	// auditLogMegabytes is far more than a test writes: a log that rotates in the middle of a test loses lines to it.
	auditLogMegabytes = 100_000
	serviceRange      = "10.96.0.0/16"

	// A real cluster lets each controller make 20 requests a second. Tests that are not about that should not wait
	// for it: the limit is set to what two cores can serve.
	raisedRate  = 200
	raisedBurst = 400
)

func writeAuditPolicy(l layout) error {
	return os.WriteFile(l.auditPolicy(), []byte(auditPolicy), privateFile)
}

func etcdComponent(l layout, client, peer *reservation) component {
	return component{etcdName, []string{
		"--data-dir=" + l.etcdData(),
		"--client-address=" + client.address,
		"--peer-address=" + peer.address,
	}}
}

func apiServerComponent(l layout, etcd, serving *reservation) component {
	return component{apiServerName, []string{
		"--etcd-servers=http://" + etcd.address,
		"--bind-address=" + loopback,
		"--advertise-address=" + loopback,
		fmt.Sprintf("--secure-port=%d", serving.port),
		"--permit-port-sharing=true", // with the reservation, see ports.go
		// Endpoints on a loopback address are invalid, and nothing here looks for the API server by its Service.
		"--endpoint-reconciler-type=none",
		"--tls-cert-file=" + l.servingCertificate(),
		"--tls-private-key-file=" + l.servingKey(),
		"--token-auth-file=" + l.tokens(),
		"--authorization-mode=RBAC",
		"--allow-privileged=true", // as every installer of clusters has it; Pod Security is what refuses privilege there
		"--enable-admission-plugins=NodeRestriction",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + l.serviceAccountKey(),
		"--service-account-signing-key-file=" + l.serviceAccountKey(),
		"--service-cluster-ip-range=" + serviceRange,
		"--audit-policy-file=" + l.auditPolicy(),
		"--audit-log-path=" + l.auditLog(),
		fmt.Sprintf("--audit-log-maxsize=%d", auditLogMegabytes),
	}}
}

func controllerManagerComponent(l layout, stockRates bool) component {
	args := []string{
		"--kubeconfig=" + l.kubeconfig(controllerManagerUser),
		"--controllers=" + strings.Join(controllers, ","),
		// One service account per controller, as in real clusters, so that the audit log names the controller.
		"--use-service-account-credentials=true",
		"--root-ca-file=" + l.caCertificate(),
		"--service-account-private-key-file=" + l.serviceAccountKey(),
	}
	return component{controllerManagerName, append(args, clientFlags(stockRates)...)}
}

func schedulerComponent(l layout, stockRates bool) component {
	args := []string{"--kubeconfig=" + l.kubeconfig(schedulerUser)}
	return component{schedulerName, append(args, clientFlags(stockRates)...)}
}

// clientFlags are for a component that is the only one of its kind and serves nobody.
func clientFlags(stockRates bool) []string {
	flags := []string{"--leader-elect=false", "--secure-port=0"}
	if !stockRates {
		flags = append(flags, fmt.Sprintf("--kube-api-qps=%d", raisedRate), fmt.Sprintf("--kube-api-burst=%d", raisedBurst))
	}
	return flags
}
