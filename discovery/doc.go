// Package discovery is how a new node finds the others of a cluster that does not exist yet: through
// a token, a directory in somebody else's cluster in which all nodes register ([Join], [Lookup]), or
// through DNS SRV records ([SRV]). Both end in the text that --initial-cluster would have had; what
// is made of it is the caller's business. It also holds the other side, [Service]: the handing out
// and serving of tokens for clusters that are to be.
//
// The token protocol is the one of etcd 2 and 3.4 (spec discovery): the requests are the same bytes in
// the same order, so nodes of either kind meet at either kind of service. A directory looks like this:
//
//	PATH/_config/size   "3"                          written by whoever made the token
//	PATH/MEMBERID       "n1=http://10.0.0.1:2380"    written by each node; the first 3 are the cluster
//
// A token makes one cluster, once. The package keeps no state on disk, and never decides whether this
// node needs discovery at all: a node with a log of its own does not.
package discovery
