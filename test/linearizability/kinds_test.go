//go:build linux && faults

package linearizability

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// processFaults are the faults of processes, their disks and their data.
var processFaults = []fault{
	{"kill -9 the leader", 4, stopping(syscall.SIGKILL, leader)},
	{"kill -9 a follower", 3, stopping(syscall.SIGKILL, follower)},
	{"kill -9 a majority", 2, stopping(syscall.SIGKILL, majority)},
	{"kill -9 all", 2, stopping(syscall.SIGKILL, everyone)},
	{"stop the leader", 2, stopping(syscall.SIGTERM, leader)},
	{"stop a follower", 1, stopping(syscall.SIGTERM, follower)},
	{"stop a majority", 1, stopping(syscall.SIGTERM, majority)},
	{"stop all", 1, stopping(syscall.SIGTERM, everyone)},
	{"stop all in turn", 1, rolling},
	{"kill -9 while starting", 2, crashLoop},
	{"pause the leader for 2 s", 3, pausing(2*time.Second, leader)},
	{"pause the leader for 5 s", 2, pausing(5*time.Second, leader)},
	{"pause the leader with readers waiting", 4, readersWaiting},
	{"pause the leader for 15 s", 1, pausing(15*time.Second, leader)},
	{"pause a follower for 15 s", 1, pausing(15*time.Second, follower)},
	{"pause a follower for 5 s", 1, pausing(5*time.Second, follower)},
	{"pause a majority for 2 s", 1, pausing(2*time.Second, majority)},
	{"pause a majority for 5 s", 1, pausing(5*time.Second, majority)},
	{"pause all for 2 s", 1, pausing(2*time.Second, everyone)},
	{"slow disk of the leader", 2, slowDisk(leader)},
	{"slow disk of a follower", 1, slowDisk(follower)},
	{"slow disk of all", 1, slowDisk(everyone)},
	{"failing sync on the leader", 1, brokenDisk("fdatasync:error=EIO", leader)},
	{"failing sync on a follower", 1, brokenDisk("fdatasync:error=EIO", follower)},
	{"full disk of the leader", 1, brokenDisk("pwrite64:error=ENOSPC", leader)},
	{"full disk of a follower", 1, brokenDisk("pwrite64:error=ENOSPC", follower)},
	{"a follower is killed and falls far behind", 2, farBehind(killed)},
	{"a follower is cut off and falls far behind", 2, farBehind(cutOff)},
	{"a follower is paused and falls far behind", 2, farBehind(paused)},
	{"leader with writes under way deposed", 3, unfinishedBusiness},
	{"all that have a write killed", 3, noWitness},
	{"leader killed while its disk hangs", 2, hangingLeader},
	{"reads before a term has begun", 2, readsBeforeTerm},
	{"requests sent again", 2, sentAgain},
	{"replace a member", 2, replace},
	{"no file descriptors left for the leader", 1, limited(unix.RLIMIT_NOFILE, openFiles, manyConnections, leader)},
	{"no file descriptors left for a follower", 1, limited(unix.RLIMIT_NOFILE, openFiles, manyConnections, follower)},
	{"no memory left for the leader", 1, limited(unix.RLIMIT_AS, addressSpace, manyBodies, leader)},
	{"no memory left for a follower", 1, limited(unix.RLIMIT_AS, addressSpace, manyBodies, follower)},
	{"clock of the leader +1 h", 1, wrongClocks(leader, time.Hour)},
	{"clock of the leader -1 h", 1, wrongClocks(leader, -time.Hour)},
	{"clocks of a majority +1 h", 2, wrongClocks(majority, time.Hour)},
	{"clocks of all +1 h", 1, wrongClocks(everyone, time.Hour)},
	{"clocks of all -1 h", 1, wrongClocks(everyone, -time.Hour)},
	{"clocks of all strobe by 1 h", 2, wrongClocks(everyone, time.Hour, -time.Hour)},
	{"clients that do not read", 2, deafClients},
	{"damaged raft.db", 2, damaging("wal/raft.db")},
	{"damaged journal", 2, damaging("wal/journal-*[0-9]")},
	{"damaged segment", 2, damaging("wal/segments/*.wal")},
	{"damaged snapshot", 2, damaging("snap/*.snap")},
	{"damaged identity", 1, damaging("identity.json")},
}

// networkFaults are those of the network between members.
var networkFaults = []fault{
	{"leader alone", 4, cutting(isolated(leader))},
	{"a follower alone", 2, cutting(isolated(follower))},
	{"a majority without the others", 2, cutting(isolated(majority))},
	{"deaf leader", 2, cutting(deaf(leader))},
	{"mute leader", 2, cutting(mute(leader))},
	{"deaf follower", 1, cutting(deaf(follower))},
	{"mute follower", 1, cutting(mute(follower))},
	{"ring", 1, cutting(ring)},
	{"flapping leader", 2, flapping(leader)},
	{"flapping follower", 1, flapping(follower)},
	{"leader alone, connections reset", 2, cutAndReset(leader)},
	{"a follower alone, connections reset", 1, cutAndReset(follower)},
	{"connections of the leader reset", 2, resetting(leader)},
	{"all connections reset", 2, resetting(everyone)},
	{"slow network", 2, slow(everyone)},
	{"slow leader", 2, slow(leader)},
	{"slow follower", 1, slow(follower)},
	{"a fifth of all packets lost", 2, lossy(everyone, 0.2)},
	{"a fifth of the leader's packets lost", 1, lossy(leader, 0.2)},
	{"half of a follower's packets lost", 1, lossy(follower, 0.5)},
	{"narrow network", 2, narrow(everyone)},
	{"narrow leader", 1, narrow(leader)},
}
