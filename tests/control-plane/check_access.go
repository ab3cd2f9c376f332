// Checks of what stands between a client and the cluster: rights, quotas, and the audit log that sees it all.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const serviceAccountName = "check"

func (i *instance) checkRBAC(ctx context.Context) (string, error) {
	accounts := i.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: serviceAccountName}}
	if _, err := accounts.Create(ctx, account, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	token, err := accounts.CreateToken(ctx, serviceAccountName, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	config := rest.AnonymousClientConfig(i.config)
	config.BearerToken = token.Status.Token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return "", err
	}
	list := func() error {
		_, err := client.CoreV1().Pods(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{})
		return err
	}
	if err := list(); !apierrors.IsForbidden(err) {
		return "", fmt.Errorf("without rights, listing pods gave %v", err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: serviceAccountName},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: serviceAccountName, Namespace: metav1.NamespaceDefault}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
	}
	if _, err := i.client.RbacV1().RoleBindings(metav1.NamespaceDefault).Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	// The authorizer learns of the binding by a watch.
	return "403 without a right, an answer with it", poll(ctx, list)
}

func (i *instance) checkQuota(ctx context.Context) (string, error) {
	const name, allowed = "check-quota", 2
	const counted = corev1.ResourceName("count/podtemplates")
	if _, err := i.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	quotas := i.client.CoreV1().ResourceQuotas(name)
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{counted: *resource.NewQuantity(allowed, resource.DecimalSI)}},
	}
	if _, err := quotas.Create(ctx, quota, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	// Admission goes by the status, which the controller writes.
	err := poll(ctx, func() error {
		quota, err := quotas.Get(ctx, name, metav1.GetOptions{})
		if err == nil && quota.Status.Hard[counted] != quota.Spec.Hard[counted] {
			err = errors.New("the quota has no status")
		}
		return err
	})
	if err != nil {
		return "", err
	}
	templates := i.client.CoreV1().PodTemplates(name)
	create := func() error {
		template := &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{GenerateName: "check-"}, Template: podTemplate(corev1.RestartPolicyAlways)}
		_, err := templates.Create(ctx, template, metav1.CreateOptions{})
		return err
	}
	for range allowed {
		if err := create(); err != nil {
			return "", err
		}
	}
	if err := create(); !apierrors.IsForbidden(err) {
		return "", fmt.Errorf("one more than allowed gave %v", err)
	}
	return fmt.Sprintf("%d of %d, then 403", allowed, allowed), nil
}

// A deed is what the audit log says of a request: who did what to which kind of thing, and the answer.
type deed struct {
	user, verb, group, resource, subresource string
	code                                     int32
}

// checkAudit looks for what the checks before it did.
func (i *instance) checkAudit(ctx context.Context) (string, error) {
	const controller = "system:serviceaccount:kube-system:replicaset-controller"
	once := deed{adminUser, "create", "apps", "deployments", "", 201}
	wanted := []deed{
		once,
		{adminUser, "update", "apps", "deployments", "scale", 200},
		{controller, "create", "", "pods", "", 201},
		{schedulerUser, "create", "", "pods", "binding", 201},
		{"system:serviceaccount:default:" + serviceAccountName, "list", "", "pods", "", 403},
	}
	var lines int
	// A line is written right after the answer, so the client may be ahead of it.
	err := poll(ctx, func() error {
		deeds, err := readAudit(i.ready.AuditLog)
		if err != nil {
			return err
		}
		lines = 0
		for _, count := range deeds {
			lines += count
		}
		for _, one := range wanted {
			if deeds[one] == 0 {
				return fmt.Errorf("no line for %+v", one)
			}
		}
		if deeds[once] != 1 {
			return fmt.Errorf("%d lines for %+v", deeds[once], once)
		}
		return nil
	})
	return fmt.Sprintf("%d lines", lines), err
}

// readAudit counts the deeds, and fails on a line that is not as README.md describes it.
func readAudit(path string) (map[deed]int, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	deeds := map[deed]int{}
	ids := map[string]bool{}
	for line := range bytes.Lines(content) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // It is being written.
		}
		var event auditv1.Event
		if err := json.Unmarshal(line, &event); err != nil {
			return nil, err
		}
		if event.Stage != auditv1.StageResponseComplete || event.Level != auditv1.LevelMetadata || ids[string(event.AuditID)] {
			return nil, fmt.Errorf("not one line per finished request: %s", line)
		}
		ids[string(event.AuditID)] = true
		if event.ObjectRef != nil && event.ResponseStatus != nil {
			deeds[deed{
				event.User.Username, event.Verb, event.ObjectRef.APIGroup, event.ObjectRef.Resource,
				event.ObjectRef.Subresource, event.ResponseStatus.Code,
			}]++
		}
	}
	return deeds, nil
}
