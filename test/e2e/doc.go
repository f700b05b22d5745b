// Package e2e holds the end-to-end tests: real server processes on one machine, spoken to over the wire
// only, and treated the way machines, operators and power cuts treat them.
//
// A fast part runs with every go test. The tag e2e adds the long rounds:
//
//	go test -tags e2e -timeout 60m ./test/e2e
//
// A soak of ten minutes is behind a tag of its own (make soak); with e2e it lasts for seconds.
//
// Most of it also holds for etcd 3.4, which keeps the tests honest: go test ./test/e2e -kind etcd.
package e2e
