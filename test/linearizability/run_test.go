//go:build linux && faults

package linearizability

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/internal/cluster"
	lossydisk "github.com/quorate/quorate/internal/lossy"
)

// plan is what a seed decides before a run begins.
type plan struct {
	seed     int64
	size     int
	duration time.Duration
	// proxied says that members reach each other through a mesh, so that the network can fail, too.
	proxied bool
	// snapshots is after how many commands a snapshot is taken. With 50 the log keeps 500 entries, with
	// 10 it keeps 100; with 0, the default, members never fall behind what is kept.
	snapshots uint64
	logStore  string   // --log-store of the members
	lossy     bool     // members have disks whose power can fail
	bootstrap bool     // members are killed while the cluster forms
	binary    string   // the server
	idle      int      // watchers of a key that nothing happens to
	only      []string // the faults to choose from; empty for all
	// patience is how long the run waits for what has to happen, such as that a healed cluster serves.
	patience time.Duration
}

// newPlan draws a plan. size 0 lets the seed decide.
func newPlan(seed int64, size int, duration time.Duration) plan {
	rng := rand.New(rand.NewPCG(uint64(seed), 0))
	p := plan{seed: seed, size: 3, duration: duration, patience: 3 * time.Minute}
	if rng.IntN(3) == 0 {
		p.size = 5
	}
	if size != 0 {
		p.size = size
	}
	if seed%2 == 0 {
		p.snapshots = []uint64{50, 10}[seed/2%2]
	}
	p.proxied = rng.IntN(4) != 0
	p.bootstrap = rng.IntN(4) == 0
	p.logStore = []string{"wal", "wal", "boltdb", "boltdb"}[seed%4]
	if *logStoreFlag != "" {
		p.logStore = *logStoreFlag
	}
	p.lossy = *disksFlag == "lossy" || (*disksFlag == "" && seed%3 == 2 && lossyDisks() == nil)
	if seed%20 == 7 {
		p.idle = 10_000
	}
	return p
}

func (p plan) String() string {
	return fmt.Sprintf("seed %d: %d members, %v, proxied %t, snapshots every %d, killed during bootstrap %t, log store %s, lossy disks %t, idle watchers %d",
		p.seed, p.size, p.duration, p.proxied, p.snapshots, p.bootstrap, p.logStore, p.lossy, p.idle)
}

// run is one cluster and everything that is done to it.
type run struct {
	plan
	dir   string
	start time.Time
	c     *cluster.Cluster
	mesh  *mesh

	mu       sync.Mutex // guards what follows
	nodes    []*node
	ops      []Op
	failures []string // of the run itself
	cleanups []func()
	disks    []mountedDisk
	log      strings.Builder
	faults   map[string]int // how often each was injected
	joined   int            // members that were added
	values   int            // that fill has written
	// starved are the members that had too little memory once: Go may have ended them.
	starved map[string]bool
}

// node is a place in the cluster. Another member takes it when one is replaced.
type node struct {
	slot int
	m    *cluster.Member
	disk *lossydisk.Disk // nil on a real one
	id   string
	life int  // counts the runs of the processes
	down bool // the harness has stopped it, or expects it to stop
	gone bool // it was removed
	// joining says that it was added but does not know yet who it is.
	joining bool
}

// Helper, Logf, Errorf, Fatalf, Failed and Cleanup make a run what package cluster needs of a test.
func (r *run) Helper() {}

func (r *run) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.log, "%8v ", ms(time.Since(r.start)))
	fmt.Fprintf(&r.log, format, args...)
	r.log.WriteByte('\n')
}

func (r *run) Errorf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.Logf("FAILURE %s", text)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, text)
}

func (r *run) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *run) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.failures) > 0
}

// Patience is asked for by package cluster.
func (r *run) Patience() time.Duration { return r.patience }

func (r *run) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

// result is what a run comes to.
type result struct {
	plan
	dir      string
	history  *History
	report   *Report
	failures []string // besides the report's violations
	log      string
	faults   map[string]int
	installs int // snapshots that members got from leaders
	// unstarted says that not even the first start has come to an end in time, and nothing was injected:
	// this says something about the machine, and nothing about the cluster.
	unstarted bool
}

func (res *result) ok() bool { return len(res.failures) == 0 && len(res.report.Violations) == 0 }

// execute carries out a plan. All it makes is below dir.
func execute(p plan, dir string) *result {
	r := &run{plan: p, dir: dir, start: time.Now(), faults: map[string]int{}, starved: map[string]bool{}}
	h := &History{Seed: p.seed}
	wall := r.start.Round(0) // without its monotonic reading
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.play(h)
	}()
	<-done
	drift := time.Now().Round(0).Sub(wall) - time.Since(r.start)
	h.Stepped = drift.Abs() > 20*time.Millisecond
	installs := 0
	if r.c != nil {
		r.checkCrashes()
		for _, log := range r.logs() {
			installs += strings.Count(log, "Installed remote snapshot") + strings.Count(log, "installed remote snapshot")
		}
	}
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
	h.Ops = r.ops
	res := &result{
		plan: p, dir: dir, history: h, report: Check(h, 20*time.Second),
		faults: r.faults, installs: installs, unstarted: len(r.failures) > 0 && h.Start == 0 && !p.bootstrap,
	}
	r.putAwayDisks(len(r.failures) > 0 || len(res.report.Violations) > 0 || *keepFlag)
	res.failures, res.log = r.failures, r.log.String()
	return res
}

// checkCrashes looks for stack traces in the logs. Only what Go itself says when there is no memory left
// may be there.
func (r *run) checkCrashes() {
	for name, log := range r.logs() {
		for _, sign := range []string{"panic: ", "fatal error: ", "WARNING: DATA RACE"} {
			member, _, _ := strings.Cut(name, "-")
			if i := strings.Index(log, sign); i >= 0 && (sign != "fatal error: " || !r.starved[member]) {
				r.Errorf("%s crashed:\n%s", name, log[i:min(len(log), i+4000)])
			}
		}
	}
}

// logs are what all members have written.
func (r *run) logs() map[string]string {
	out := map[string]string{}
	files, _ := filepath.Glob(filepath.Join(r.dir, "cluster", "*.log"))
	for _, f := range files {
		out[filepath.Base(f)] = readFile(f)
	}
	return out
}

// play is the run from the first start to the last look.
func (r *run) play(h *History) {
	rng := rand.New(rand.NewPCG(uint64(r.seed), 1))
	r.Logf("%v", r.plan)
	r.setUp(rng)
	h.Start = r.quorumIndex()
	r.Logf("ready at index %d", h.Start)

	watching, stopWatching := context.WithCancel(context.Background())
	working, stopWorking := context.WithCancel(context.Background())
	watchers := r.startWatchers(watching, h.Start+1)
	clients := r.startClients(working)
	idlers := r.startIdlers(watching, r.idle, h.Start+1)
	defer func() { // when something has failed
		stopWorking()
		stopWatching()
		clients.Wait()
		h.Watches = watchers.wait()
		idlers.group.Wait()
	}()

	r.trouble()
	r.heal()
	r.c.WaitReady()
	h.Well = time.Since(r.start)
	terms := r.terms()
	stall := watchMachine()
	r.Logf("well again, terms %v", terms)

	sleep(working, 2*time.Second) // of quiet work
	stopWorking()
	clients.Wait()
	r.awaitExpiry()
	idlers.wake(r)
	end := r.lastWrite()
	r.c.WaitEqual()
	watchers.await(r, end)
	h.Complete = true
	h.Stall = stall()
	stopWatching()
	r.lookAtAll(h)
	h.Steady = fmt.Sprint(terms) == fmt.Sprint(r.terms())
	r.checkRunning()
	r.Logf("ended at index %d", end)
}

// setUp starts the cluster and returns when it is healthy.
func (r *run) setUp(rng *rand.Rand) {
	options := cluster.Options{
		Binary: r.binary,
		Size:   r.size,
		Token:  fmt.Sprintf("faults-%d", r.seed),
		Dir:    filepath.Join(r.dir, "cluster"),
		// See checkCrashes.
		CrashOK: true,
	}
	// The machine itself may be slow: only faults are to end members.
	options.Flags = append(options.Flags, "--disk-stall-limit=2m")
	if r.logStore != "" {
		options.Flags = append(options.Flags, "--log-store="+r.logStore)
	}
	if r.snapshots > 0 {
		options.Flags = append(options.Flags, fmt.Sprintf("--snapshot-count=%d", r.snapshots))
	}
	r.c = cluster.New(r, options)
	if r.proxied {
		r.mesh = newMesh()
		r.Cleanup(r.mesh.close)
	}
	for i, m := range r.c.Members {
		n := &node{slot: i, m: m}
		r.nodes = append(r.nodes, n)
		r.putOnDisk(n)
		r.behindProxy(i, m)
		r.withClock(m)
	}
	for i, m := range r.c.Members {
		m.Boot = []string{"--initial-cluster", r.c.InitialCluster(), "--initial-cluster-state", "new", "--initial-cluster-token", options.Token}
		r.nodes[i].id = api.FormatID(api.MemberID([]string{m.PeerURL}, options.Token))
		r.identify(r.nodes[i])
	}
	r.c.StartAll()
	if r.bootstrap {
		r.troubledBootstrap(rng)
	}
	r.c.WaitReady()
}

// behindProxy makes a member that has not been started advertise a proxy.
func (r *run) behindProxy(slot int, m *cluster.Member) {
	if r.mesh == nil {
		return
	}
	listen := m.PeerURL
	p, err := r.mesh.newProxy(slot, strings.TrimPrefix(listen, "http://"))
	if err != nil {
		r.Fatalf("proxy of %s: %v", m.Name, err)
	}
	r.Cleanup(func() { p.listener.Close() })
	m.PeerURL = p.url()
	m.Flags = append(m.Flags, "--listen-peer-urls", listen)
}

func (r *run) identify(n *node) {
	if r.mesh != nil {
		r.mesh.name(n.id, n.slot)
	}
}

// place returns who is in a slot now, and the number of its run.
func (r *run) place(slot int) (m *cluster.Member, life int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.nodes {
		if n := r.nodes[(slot+i)%len(r.nodes)]; !n.gone {
			return n.m, n.life
		}
	}
	return r.nodes[slot].m, r.nodes[slot].life
}

// present returns the nodes that are members.
func (r *run) present() []*node {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*node
	for _, n := range r.nodes {
		if !n.gone {
			out = append(out, n)
		}
	}
	return out
}

// until repeats a request to members in turn until it returns nil.
func (r *run) until(what string, f func(ctx context.Context, m *cluster.Member) error) {
	i := 0
	cluster.Eventually(r, what, func(ctx context.Context) error {
		m, _ := r.place(i % len(r.nodes))
		i++
		return f(ctx, m)
	})
}

// quorumIndex returns an index that all later ones lie above.
func (r *run) quorumIndex() uint64 {
	var index uint64
	r.until("a quorum read", func(ctx context.Context, m *cluster.Member) error {
		resp, err := m.QuorumGet(ctx, "/")
		if err != nil || !resp.OK() {
			return fmt.Errorf("%v (%v)", resp, err)
		}
		index = resp.Index()
		return nil
	})
	return index
}

// terms are what the members say of the term.
func (r *run) terms() map[string]uint64 {
	terms := map[string]uint64{}
	for _, n := range r.present() {
		cluster.Eventually(r, "the term of "+n.m.Name, func(ctx context.Context) error {
			s, err := n.m.Status(ctx)
			terms[n.m.Name] = s.Term
			return err
		})
	}
	return terms
}

// awaitExpiry waits until nothing is left that has a TTL.
func (r *run) awaitExpiry() {
	r.until("keys to expire", func(ctx context.Context, m *cluster.Member) error {
		for _, dir := range []string{ttlDir, lockDir} {
			resp, err := m.QuorumGet(ctx, dir)
			if err != nil {
				return err
			}
			if e, err := resp.Event(); resp.OK() && (err != nil || e.Node == nil || len(e.Node.Nodes) > 0) {
				return fmt.Errorf("%v", resp)
			} else if !resp.OK() && resp.Status != 404 {
				return fmt.Errorf("%v", resp)
			}
		}
		return nil
	})
}

// lastWrite writes through every member and returns the index of the last write.
func (r *run) lastWrite() uint64 {
	var last uint64
	for i, n := range r.present() {
		attempt := 0
		cluster.Eventually(r, "the last write through "+n.m.Name, func(ctx context.Context) error {
			attempt++
			o := r.do(ctx, Op{Client: -1, Kind: Put, Key: fmt.Sprintf("%s/end/%d", root, i), Value: fmt.Sprintf("end-%d-%d", i, attempt)}, n.slot)
			if o.Outcome != OK {
				return fmt.Errorf("%v", o)
			}
			last = max(last, o.Event.Modified)
			return nil
		})
	}
	return last
}

// lookAtAll notes what every member holds.
func (r *run) lookAtAll(h *History) {
	for _, n := range r.present() {
		f := Final{Member: n.m.Name, Keys: map[string]State{}}
		cluster.Eventually(r, "everything from "+n.m.Name, func(ctx context.Context) error {
			s, err := n.m.Status(ctx)
			if err != nil {
				return err
			}
			resp, err := n.m.Get(ctx, root+"?recursive=true")
			if err != nil || !resp.OK() {
				return fmt.Errorf("%v (%v)", resp, err)
			}
			e, err := resp.Event()
			if err != nil {
				return err
			}
			f.Index, f.Checksum = s.Index, s.Checksum
			var walk func(*api.Node)
			walk = func(n *api.Node) {
				if n.Value != nil {
					f.Keys[n.Key] = stateOf(n)
				}
				for _, child := range n.Nodes {
					walk(child)
				}
			}
			walk(e.Node)
			return nil
		})
		h.Finals = append(h.Finals, f)
	}
}

// checkRunning fails if a member has ended that nobody has stopped.
func (r *run) checkRunning() {
	for _, n := range r.present() {
		r.mu.Lock()
		down := n.down
		r.mu.Unlock()
		if !down && !n.m.Running() {
			r.unexpectedEnd(n)
		}
	}
}

func (r *run) unexpectedEnd(n *node) {
	lines := strings.Split(strings.TrimSpace(n.m.Log()), "\n")
	r.Errorf("%s has ended by itself: %v\n%s", n.m.Name, n.m.Wait(), strings.Join(lines[max(0, len(lines)-15):], "\n"))
}

// watchMachine returns a function that ends it and tells the longest time by which a timer was late.
func watchMachine() func() time.Duration {
	const every = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	longest := make(chan time.Duration, 1)
	go func() {
		var most time.Duration
		for ctx.Err() == nil {
			before := time.Now()
			sleep(ctx, every)
			most = max(most, time.Since(before)-every)
		}
		longest <- most
	}()
	return func() time.Duration { cancel(); return <-longest }
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
