//go:build tools

// The program that this module exists to build; naming it here keeps it in go.mod and go.sum.
package agent

import _ "github.com/buildkite/agent/v3"
