// Package api is the vocabulary of the etcd v2 API: events, nodes, members and error codes, as they
// travel over HTTP. It imports the standard library only, so that clients can use it alone.
//
// The shapes are those of etcd 3.4 with --enable-v2: field names, field order, and which fields are
// left out when empty are part of the contract.
package api

import "time"

// Names of the headers that every answer under /v2/keys may carry.
const (
	HeaderClusterID = "X-Etcd-Cluster-Id"
	HeaderIndex     = "X-Etcd-Index"
	HeaderRaftIndex = "X-Raft-Index"
	HeaderRaftTerm  = "X-Raft-Term"
	// HeaderProxy, in a request, lists the proxies that it came through.
	HeaderProxy = "X-Quorate-Proxy"
)

// Event is the answer to a key request, and what a watch delivers.
type Event struct {
	// Action is get, set, create, update, delete, compareAndSwap, compareAndDelete or expire.
	Action   string `json:"action"`
	Node     *Node  `json:"node,omitempty"`
	PrevNode *Node  `json:"prevNode,omitempty"`
}

// Node is a key or a directory as shown in answers.
type Node struct {
	// Key starts with a slash and has none at its end. The root has no key at all.
	Key string `json:"key,omitempty"`
	// Value is nil for directories and for the node of a removal.
	Value *string `json:"value,omitempty"`
	Dir   bool    `json:"dir,omitempty"`
	// Expiration is when the node goes away, in UTC; nil for a permanent one.
	Expiration *time.Time `json:"expiration,omitempty"`
	// TTL is the remaining life in whole seconds, rounded up.
	TTL           int64   `json:"ttl,omitempty"`
	Nodes         []*Node `json:"nodes,omitempty"`
	ModifiedIndex uint64  `json:"modifiedIndex,omitempty"`
	CreatedIndex  uint64  `json:"createdIndex,omitempty"`
}

// Member is one server of a cluster, as /v2/members shows it. Slices are never nil there.
type Member struct {
	// ID is 64 bits in lower-case hex, without leading zeros.
	ID string `json:"id"`
	// Name is empty until a member that was added at run time has started.
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
}

// Version is the answer of /version.
type Version struct {
	Server  string `json:"etcdserver"`
	Cluster string `json:"etcdcluster"`
}

// SelfStats is the answer of /v2/stats/self.
type SelfStats struct {
	Name       string     `json:"name"`
	ID         string     `json:"id"`
	State      string     `json:"state"` // StateLeader or StateFollower
	StartTime  time.Time  `json:"startTime"`
	LeaderInfo LeaderInfo `json:"leaderInfo"`
	// Append messages received from leaders and sent as leader, since this process started.
	RecvAppendRequestCnt uint64  `json:"recvAppendRequestCnt"`
	RecvPkgRate          float64 `json:"recvPkgRate,omitempty"`
	RecvBandwidthRate    float64 `json:"recvBandwidthRate,omitempty"`
	SendAppendRequestCnt uint64  `json:"sendAppendRequestCnt"`
	SendPkgRate          float64 `json:"sendPkgRate,omitempty"`
	SendBandwidthRate    float64 `json:"sendBandwidthRate,omitempty"`
}

// LeaderInfo says who leads, and since when this member knows it.
type LeaderInfo struct {
	Leader    string    `json:"leader"`
	Uptime    string    `json:"uptime"` // a Go duration
	StartTime time.Time `json:"startTime"`
}

// LeaderStats is the answer of /v2/stats/leader, from the leader only.
type LeaderStats struct {
	Leader    string                   `json:"leader"`
	Followers map[string]FollowerStats `json:"followers"`
}

// FollowerStats is what a leader knows of one follower; latencies are in milliseconds.
type FollowerStats struct {
	Latency LatencyStats `json:"latency"`
	Counts  CountStats   `json:"counts"`
}

// LatencyStats describes the time of successful append messages, in milliseconds.
type LatencyStats struct {
	Current           float64 `json:"current"`
	Average           float64 `json:"average"`
	StandardDeviation float64 `json:"standardDeviation"`
	Minimum           float64 `json:"minimum"`
	Maximum           float64 `json:"maximum"`
}

// CountStats counts append messages to one follower.
type CountStats struct {
	Fail    uint64 `json:"fail"`
	Success uint64 `json:"success"`
}

// StoreStats is the answer of /v2/stats/store.
type StoreStats struct {
	GetsSuccess             uint64 `json:"getsSuccess"`
	GetsFail                uint64 `json:"getsFail"`
	SetsSuccess             uint64 `json:"setsSuccess"`
	SetsFail                uint64 `json:"setsFail"`
	DeleteSuccess           uint64 `json:"deleteSuccess"`
	DeleteFail              uint64 `json:"deleteFail"`
	UpdateSuccess           uint64 `json:"updateSuccess"`
	UpdateFail              uint64 `json:"updateFail"`
	CreateSuccess           uint64 `json:"createSuccess"`
	CreateFail              uint64 `json:"createFail"`
	CompareAndSwapSuccess   uint64 `json:"compareAndSwapSuccess"`
	CompareAndSwapFail      uint64 `json:"compareAndSwapFail"`
	CompareAndDeleteSuccess uint64 `json:"compareAndDeleteSuccess"`
	CompareAndDeleteFail    uint64 `json:"compareAndDeleteFail"`
	ExpireCount             uint64 `json:"expireCount"`
	Watchers                uint64 `json:"watchers"`
}

// Readiness is whether a member should get traffic, for /readyz.
type Readiness struct {
	Ready bool
	// Reasons says, one sentence each, what keeps the member from being ready, or what an operator
	// should know although it is.
	Reasons []string
}

// MemberStatus is the answer of /quorate/v1/status: how one member sees itself and its cluster.
type MemberStatus struct {
	MemberID  string `json:"memberID"`
	Name      string `json:"name"`
	ClusterID string `json:"clusterID"`
	// Leader is the ID of the leader, empty while none is known.
	Leader string `json:"leader"`
	Term   uint64 `json:"term"`
	// RaftIndex is the index up to which the member knows the log to be committed.
	RaftIndex uint64 `json:"raftIndex"`
	// Index is the member's store index, as in X-Etcd-Index.
	Index uint64 `json:"index"`
	// Checksum is over all keys at Index, in hex, only when it was asked for: members at one index
	// have one checksum.
	Checksum string   `json:"checksum,omitempty"`
	Version  Version  `json:"version"`
	Ready    bool     `json:"ready"`
	Reasons  []string `json:"reasons"`
	// Voters are the IDs of the members that have a vote, as far as this one knows: all but those that
	// were added and have not caught up yet.
	Voters []string `json:"voters"`
}
