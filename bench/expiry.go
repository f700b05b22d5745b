//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"
)

// expiryLine has many keys expire in the same second, while others read and write.
func expiryLine(c config) line {
	name := fmt.Sprintf("expiry/nodes=1/keys=%d", c.expiring)
	return line{name: name, rounds: 3, run: func(tb *progress, c config, t *target) []value {
		// Lifetimes are whole seconds, so all end within the second before due.
		due := time.Now().Add(c.settle + time.Duration(c.expiring)*100*time.Microsecond)
		must(tb, "fill", fillWith(t, c.expiring, func(i int) []byte {
			left := max(1, int(time.Until(due)/time.Second))
			return request("PUT", "/v2/keys"+pathOf("/mortal", i), fmt.Sprintf("ttl=%d&value=%s", left, text))
		}))
		must(tb, "write the key to read", once(t.addrs[0], set("/one", text), surely))
		get := request("GET", "/v2/keys/one", "")
		write := set("/probe", text)
		time.Sleep(time.Until(due) - 2*time.Second)
		reads := probe(t.addrs[0], func(int) []byte { return get })
		writes := probe(t.addrs[0], func(int) []byte { return write })
		time.Sleep(time.Until(due))
		awaitGone(tb, t.addrs[0], pathOf("/mortal", c.expiring-1))
		time.Sleep(c.settle / 20)
		var values []value
		for _, p := range []struct {
			suffix string
			stall  *stall
		}{{"/read-stall", reads}, {"/write-stall", writes}} {
			took, err := p.stall.end()
			must(tb, "probe", err)
			values = append(values, value{suffix: p.suffix, unit: "ms", number: quantile(took, 1), lowerBetter: true, goal: atMost(50)})
		}
		return values
	}}
}

// awaitGone waits until a key is no longer there.
func awaitGone(tb *progress, addr, key string) {
	get := request("GET", "/v2/keys"+key+"?quorum=true", "")
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		switch err := once(addr, get, soon); {
		case err != nil && strings.Contains(err.Error(), " 404 "):
			return
		case time.Since(began) > lineLimit:
			tb.Fatalf("%s does not expire (%v)", key, err)
		}
	}
}
