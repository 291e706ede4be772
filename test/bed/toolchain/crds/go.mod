module ecr-anywhere.test/toolchain/crds

go 1.26.0

// For their files; no package imports them, so "go mod tidy" would drop them.
require (
	github.com/cert-manager/cert-manager v1.21.2
	github.com/cilium/cilium v1.20.2
	github.com/prometheus-operator/prometheus-operator v0.92.1
)
