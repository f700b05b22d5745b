//go:build linux

package main

import (
	"encoding/base64"
	"fmt"
)

// authLine reads as anybody, then switches users on, and reads as one.
func authLine() line {
	const name = "get-auth/nodes=1/conns=64"
	return line{name: name, rounds: 3, run: func(tb *progress, c config, t *target) []value {
		prepare(tb, t)
		rate := func(req []byte) float64 {
			n, err := load{t.addrs, 64, func(int, int) []byte { return req }}.runFor(c.duration)
			must(tb, name, err)
			return n
		}
		anonymous := rate(request("GET", "/v2/keys/one", ""))
		const user, password = "root", "secret"
		must(tb, "make a user", once(t.addrs[0], requestWith("PUT", "/v2/auth/users/"+user,
			fmt.Sprintf(`{"user":%q,"password":%q}`, user, password), "Content-Type: application/json"), surely))
		must(tb, "switch users on", once(t.addrs[0], request("PUT", "/v2/auth/enable", ""), surely))
		credentials := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
		known := rate(requestWith("GET", "/v2/keys/one", "", "Authorization: Basic "+credentials))
		return []value{
			{unit: "req/s", number: known},
			{suffix: "/of-anonymous", unit: "%", number: 100 * known / anonymous, goal: atLeast(80)},
		}
	}}
}
