module github.com/quorate/quorate/test/compat

go 1.26.0

require (
	github.com/coreos/go-etcd v2.0.0+incompatible
	github.com/kvtools/etcdv2 v1.0.2
	github.com/kvtools/valkeyrie v1.0.0
	github.com/quorate/quorate v0.0.0
	go.etcd.io/etcd/client/v2 v2.305.21
)

require (
	github.com/coreos/go-semver v0.3.0 // indirect
	github.com/davecgh/go-spew v1.1.1 // indirect
	github.com/json-iterator/go v1.1.12 // indirect
	github.com/modern-go/concurrent v0.0.0-20180306012644-bacd9c7ef1dd // indirect
	github.com/modern-go/reflect2 v1.0.2 // indirect
	github.com/pmezard/go-difflib v1.0.0 // indirect
	github.com/stretchr/testify v1.10.0 // indirect
	go.etcd.io/etcd/api/v3 v3.5.21 // indirect
	go.etcd.io/etcd/client/pkg/v3 v3.5.21 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)

replace github.com/quorate/quorate => ../..
