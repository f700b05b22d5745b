// Package clients drives Quorate with the clients that people really have: the etcd v2 client library, its
// forerunner go-etcd, a key-value abstraction with a test suite of its own, python-etcd, and etcdctl. It is in a
// module of its own so that nobody who uses Quorate gets these libraries. Scripts hold our own program to etcdctl, with
// both servers.
//
//	go -C test/compat test ./clients              against Quorate
//	go -C test/compat test ./clients -kind etcd   against etcd 3.4, to see whether a test is fair
package clients
