// Package linearizability tries to break a cluster and looks at what its clients were told.
//
// Real servers run on loopback. Clients of every member write, read and watch, while a schedule that
// was drawn from a seed kills, stops and pauses members, cuts their connections, slows them and their
// disks, and replaces members. Everything that a client was told is a [History], and the checks of this
// package say what in it no correct server could have said:
//
//   - [CheckRegisters]: each key by itself is linearizable, found by a search (porcupine) that trusts
//     nothing but times and answers. A request without an answer may have been done at any later time,
//     or never.
//   - [CheckLog]: all watchers saw one and the same log of events, without gaps; it makes sense event
//     by event; every answer to anybody agrees with it, at the index which the answer names, and with
//     the order of time; nothing that was acknowledged is missing and nothing was done twice.
//   - [CheckReads]: nobody who stays with one run of a member sees it go back.
//   - [CheckPosts]: every in-order key was made once, in order.
//   - [CheckTTL]: no key has expired early, nor late while the cluster was well.
//   - [CheckFinals]: in the end all members hold the same.
//
// The runs need the build tag faults and Linux:
//
//	go test -tags faults ./test/linearizability
//	go test -tags faults ./test/linearizability -run TestFaults -v -timeout 0 -seeds 1-100 -clusters 2
//
// The checks themselves are tested without it, with histories that are broken on purpose.
package linearizability
