// Package differential compares the key tree with etcd's own store, in one process: the same
// operations on both, one after the other, with every answer, error, index and watch event equal to
// the byte.
//
// It is a module of its own so that Quorate does not depend on etcd.
//
// etcd's store is that of 3.5 (go.etcd.io/etcd/server/v3/etcdserver/api/v2store). Quorate follows
// 3.4.23, and where etcd's behaviour helps nobody, reason. Those differences are the constants named
// divergence in the test: each is recognized by its own narrow rule, is counted, and must occur.
package differential
