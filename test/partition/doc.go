// Package partition cuts networks between real members and looks at what clients see on both sides.
//
// Every member is a process in a network namespace of its own, with a cable to a bridge. A cut is a rule
// of the packet filter in the namespace of the receiver, so packets are lost as on a wire: nobody is told.
// Clients sit at the bridge and still reach everybody, which is how they can be misled by a minority.
//
//	go test -tags partition -v ./test/partition
//
// It takes root, iproute2 and iptables, and skips with the reason without them. The test binary starts
// itself again in namespaces without a name, and makes everything else in there: nothing is visible
// outside, and the kernel removes it all when the process ends, however it ends.
//
// What is asserted is what the guide says about partitions, without its durations: these depend on the
// machine, and are printed ("measured") instead. Deadlines are there for failures.
package partition
