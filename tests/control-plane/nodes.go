// Node objects for the scheduler to bind pods to. No kubelet stands behind them.
package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// heartbeatPeriod keeps `kubectl describe node` credible and the audit log quiet. Nothing acts on heartbeats: the
// node lifecycle controller, which would, does not run.
const heartbeatPeriod = time.Minute

// zones gives spread constraints something to spread over.
var zones = []string{"zone-a", "zone-b", "zone-c"}

// nodeSize holds a few hundred agents, so that no test fills a node unless it means to.
var nodeSize = corev1.ResourceList{
	corev1.ResourceCPU:              resource.MustParse("64"),
	corev1.ResourceMemory:           resource.MustParse("256Gi"),
	corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
	corev1.ResourcePods:             resource.MustParse("500"),
}

func nodeName(index int) string { return fmt.Sprintf("node-%d", index+1) }

func createNodes(ctx context.Context, client kubernetes.Interface, count int) error {
	nodes := client.CoreV1().Nodes()
	for index := range count {
		if _, err := nodes.Create(ctx, newNode(index), metav1.CreateOptions{}); err != nil {
			return err
		}
		// Admission taints a new node as not ready, whatever its status says. In a real cluster the node lifecycle
		// controller takes the taint off when it reads the status.
		untaint := []byte(`{"spec":{"taints":null}}`)
		if _, err := nodes.Patch(ctx, nodeName(index), types.MergePatchType, untaint, metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func newNode(index int) *corev1.Node {
	name := nodeName(index)
	now := metav1.Now()
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name,
			Labels: map[string]string{
				corev1.LabelHostname:     name,
				corev1.LabelOSStable:     "linux",
				corev1.LabelArchStable:   "amd64",
				corev1.LabelTopologyZone: zones[index%len(zones)],
			},
		},
		Status: corev1.NodeStatus{
			Capacity:    nodeSize,
			Allocatable: nodeSize,
			Addresses:   []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}},
			Conditions: []corev1.NodeCondition{{
				Type:               corev1.NodeReady,
				Status:             corev1.ConditionTrue,
				Reason:             "NoKubelet",
				Message:            "a node of the test control plane",
				LastHeartbeatTime:  now,
				LastTransitionTime: now,
			}},
			NodeInfo: corev1.NodeSystemInfo{OperatingSystem: "linux", Architecture: "amd64"},
		},
	}
}

// keepHeartbeats runs until the context ends. It renews the time only, so a test may still declare a node not ready,
// and it leaves alone a node that a test took away.
func keepHeartbeats(ctx context.Context, client kubernetes.Interface, count int) {
	tick := time.NewTicker(heartbeatPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for index := range count {
			// The API server may be in the middle of a restart: the next beat is the retry.
			_, _ = client.CoreV1().Nodes().Patch(ctx, nodeName(index), types.StrategicMergePatchType,
				heartbeat(time.Now()), metav1.PatchOptions{}, "status")
		}
	}
}

func heartbeat(now time.Time) []byte {
	return fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","lastHeartbeatTime":%q}]}}`, now.UTC().Format(time.RFC3339))
}
