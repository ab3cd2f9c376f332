// What has to be true before the control plane counts as up.
package main

import (
	"context"
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// pollPeriod is short against a start of a few seconds and long against one request.
const pollPeriod = 50 * time.Millisecond

// apiReady waits until the API server says so itself, which includes the stock RBAC roles.
func apiReady(client kubernetes.Interface) func(context.Context) error {
	return func(ctx context.Context) error {
		return poll(ctx, func() error {
			_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
			return err
		})
	}
}

// defaultServiceAccount waits for the account without which admission refuses every pod. A controller makes it.
func defaultServiceAccount(client kubernetes.Interface) func(context.Context) error {
	return func(ctx context.Context) error {
		return poll(ctx, func() error {
			_, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
			return err
		})
	}
}

// poll tries until it works. When the time is up it returns the last failure, which says more than the deadline does.
func poll(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(pollPeriod):
		}
	}
}
