// Checks that pods come to be and find nodes.
package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	deploymentName = "check"
	deployedPods   = 3
)

var deployedLabels = map[string]string{"app": deploymentName}

func (i *instance) checkNodes(ctx context.Context) (string, error) {
	// Far enough ahead to tell it from the time of the start.
	beat := time.Now().Add(time.Hour).Truncate(time.Second)
	_, err := i.client.CoreV1().Nodes().Patch(ctx, nodeName(0), types.StrategicMergePatchType, heartbeat(beat), metav1.PatchOptions{}, "status")
	if err != nil {
		return "", err
	}
	nodes, err := i.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	if len(nodes.Items) != defaultNodes {
		return "", fmt.Errorf("%d nodes", len(nodes.Items))
	}
	inZones := map[string]bool{}
	for index, node := range nodes.Items {
		inZones[node.Labels[corev1.LabelTopologyZone]] = true
		conditions := node.Status.Conditions
		switch {
		case len(node.Spec.Taints) > 0:
			return "", fmt.Errorf("%s is tainted: %v", node.Name, node.Spec.Taints)
		case node.Labels[corev1.LabelHostname] != node.Name || node.Labels[corev1.LabelOSStable] != "linux":
			return "", fmt.Errorf("%s has the labels %v", node.Name, node.Labels)
		case !node.Status.Allocatable.Cpu().Equal(nodeSize[corev1.ResourceCPU]):
			return "", fmt.Errorf("%s has %v", node.Name, node.Status.Allocatable)
		case len(conditions) != 1 || conditions[0].Type != corev1.NodeReady || conditions[0].Status != corev1.ConditionTrue:
			return "", fmt.Errorf("%s has the conditions %v", node.Name, conditions)
		case index == 0 && !conditions[0].LastHeartbeatTime.Time.Equal(beat):
			return "", fmt.Errorf("%s has the heartbeat %s, not %s", node.Name, conditions[0].LastHeartbeatTime, beat)
		}
	}
	return fmt.Sprintf("%d nodes in %d zones", len(nodes.Items), len(inZones)), nil
}

func (i *instance) checkDeployment(ctx context.Context) (string, error) {
	began := time.Now()
	replicas := int32(1)
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: deploymentName},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: deployedLabels},
			Template: podTemplate(corev1.RestartPolicyAlways),
		},
	}
	if _, err := i.client.AppsV1().Deployments(metav1.NamespaceDefault).Create(ctx, deployment, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	if err := i.scale(ctx, deployedPods); err != nil {
		return "", err
	}
	return fmt.Sprintf("%.1f s", time.Since(began).Seconds()), nil
}

func podTemplate(restart corev1.RestartPolicy) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: deployedLabels},
		Spec: corev1.PodSpec{
			RestartPolicy: restart,
			Containers:    []corev1.Container{{Name: "main", Image: "example.invalid/none"}},
		},
	}
}

// scale returns once that many pods are bound to nodes.
func (i *instance) scale(ctx context.Context, replicas int) error {
	deployments := i.client.AppsV1().Deployments(metav1.NamespaceDefault)
	scale, err := deployments.GetScale(ctx, deploymentName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	scale.Spec.Replicas = int32(replicas)
	if _, err := deployments.UpdateScale(ctx, deploymentName, scale, metav1.UpdateOptions{}); err != nil {
		return err
	}
	return poll(ctx, func() error {
		pods, err := i.client.CoreV1().Pods(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{LabelSelector: "app=" + deploymentName})
		if err != nil {
			return err
		}
		bound := 0
		for _, pod := range pods.Items {
			if strings.HasPrefix(pod.Spec.NodeName, "node-") {
				bound++
			}
		}
		if bound != replicas || len(pods.Items) != replicas {
			return fmt.Errorf("%d pods, %d of them bound, not %d", len(pods.Items), bound, replicas)
		}
		return nil
	})
}
