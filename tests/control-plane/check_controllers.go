// Checks that the controllers other than those of Deployments run, each by what only it can have done.
package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// checkJob goes through three controllers: one makes the pod, one removes the finished Job, one the pod after it.
func (i *instance) checkJob(ctx context.Context) (string, error) {
	const name = "check-job"
	began := time.Now()
	template := podTemplate(corev1.RestartPolicyNever)
	template.Labels = nil
	atOnce := int32(0)
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       batchv1.JobSpec{Template: template, TTLSecondsAfterFinished: &atOnce},
	}
	if _, err := i.client.BatchV1().Jobs(metav1.NamespaceDefault).Create(ctx, job, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	pods := i.client.CoreV1().Pods(metav1.NamespaceDefault)
	ofJob := metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + name}
	err := poll(ctx, func() error {
		made, err := pods.List(ctx, ofJob)
		if err != nil {
			return err
		}
		if len(made.Items) != 1 {
			return fmt.Errorf("%d pods of the Job", len(made.Items))
		}
		// What a kubelet would report.
		_, err = pods.Patch(ctx, made.Items[0].Name, types.MergePatchType, []byte(`{"status":{"phase":"Succeeded"}}`), metav1.PatchOptions{}, "status")
		return err
	})
	if err != nil {
		return "", err
	}
	err = poll(ctx, func() error {
		if _, err := i.client.BatchV1().Jobs(metav1.NamespaceDefault).Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the Job is still there: %w", err)
		}
		left, err := pods.List(ctx, ofJob)
		if err == nil && len(left.Items) > 0 {
			err = errors.New("the pod of the Job is still there")
		}
		return err
	})
	return fmt.Sprintf("%.1f s", time.Since(began).Seconds()), err
}

func (i *instance) checkNamespace(ctx context.Context) (string, error) {
	const name = "check-namespace"
	began := time.Now()
	namespaces := i.client.CoreV1().Namespaces()
	if _, err := namespaces.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	err := poll(ctx, func() error {
		_, err := i.client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		if err != nil {
			return err
		}
		_, err = i.client.CoreV1().ConfigMaps(name).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err
	})
	if err != nil {
		return "", err
	}
	if err := namespaces.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return "", err
	}
	err = poll(ctx, func() error {
		if _, err := namespaces.Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the namespace is still there: %w", err)
		}
		return nil
	})
	return fmt.Sprintf("%.1f s", time.Since(began).Seconds()), err
}

func (i *instance) checkDisruption(ctx context.Context) (string, error) {
	all := intstr.FromInt32(deployedPods)
	budgets := i.client.PolicyV1().PodDisruptionBudgets(metav1.NamespaceDefault)
	budget := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: deploymentName},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &all, Selector: &metav1.LabelSelector{MatchLabels: deployedLabels}},
	}
	if _, err := budgets.Create(ctx, budget, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	err := poll(ctx, func() error {
		budget, err := budgets.Get(ctx, deploymentName, metav1.GetOptions{})
		if err == nil && budget.Status.ExpectedPods != deployedPods {
			err = fmt.Errorf("it expects %d pods, not %d", budget.Status.ExpectedPods, deployedPods)
		}
		return err
	})
	return fmt.Sprintf("it sees %d pods", deployedPods), err
}

func (i *instance) checkAggregation(ctx context.Context) (string, error) {
	rule := rbacv1.PolicyRule{APIGroups: []string{"check.example"}, Resources: []string{"things"}, Verbs: []string{"get"}}
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "check", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
		Rules:      []rbacv1.PolicyRule{rule},
	}
	if _, err := i.client.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	err := poll(ctx, func() error {
		view, err := i.client.RbacV1().ClusterRoles().Get(ctx, "view", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(view.Rules, func(r rbacv1.PolicyRule) bool { return slices.Equal(r.APIGroups, rule.APIGroups) }) {
			return errors.New("the role view lacks the rule")
		}
		return nil
	})
	return "into view", err
}

func (i *instance) checkTokenSecret(ctx context.Context) (string, error) {
	secrets := i.client.CoreV1().Secrets(metav1.NamespaceDefault)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "check", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}
	if _, err := secrets.Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	err := poll(ctx, func() error {
		secret, err := secrets.Get(ctx, "check", metav1.GetOptions{})
		if err == nil && len(secret.Data[corev1.ServiceAccountTokenKey]) == 0 {
			err = errors.New("the Secret has no token")
		}
		return err
	})
	return "filled", err
}

// checkAutoscaler takes the stock 15 s after which the autoscaler first looks. There are no metrics, so all it can do
// is to say that it may scale.
func (i *instance) checkAutoscaler(ctx context.Context) (string, error) {
	scalers := i.client.AutoscalingV2().HorizontalPodAutoscalers(metav1.NamespaceDefault)
	scaler := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: deploymentName},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: deploymentName},
			MaxReplicas:    2 * deployedPods,
		},
	}
	if _, err := scalers.Create(ctx, scaler, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	var reason string
	err := poll(ctx, func() error {
		scaler, err := scalers.Get(ctx, deploymentName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range scaler.Status.Conditions {
			if condition.Type == autoscalingv2.AbleToScale && condition.Status == corev1.ConditionTrue {
				reason = condition.Reason
				return nil
			}
		}
		return fmt.Errorf("its conditions are %v", scaler.Status.Conditions)
	})
	return reason, errors.Join(err, scalers.Delete(ctx, deploymentName, metav1.DeleteOptions{}))
}
