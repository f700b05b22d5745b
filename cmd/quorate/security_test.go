package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// tell sends bytes to an address and returns what comes back until the other side closes.
func tell(t *testing.T, address, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(deadline))
	io.WriteString(conn, text)
	conn.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(conn) // a reset is fine
	return string(answer)
}

// Where members speak nothing of the client API is served, and the other way round: neither port is a way
// around what guards the other.
func TestPortsAreNotMixedUp(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	m := start(t, serveArgs(t.TempDir(), "--enable-pprof")...)
	wait(t, "PUT", "http://"+m.address+"/v2/keys/k", "value=secret", 201)
	for _, path := range []string{
		"/v2/keys/k", "/v2/keys", "/v2/members", "/v2/members/leader", "/v2/auth/users", "/v2/auth/enable", "/v2/stats/self", "/v2/machines",
		"/metrics", "/debug/vars", "/debug/pprof/", "/quorate/v1/status", "/quorate/v1/snapshot", "/new", "/config/local/log", "/", "//v2/keys/k", "/members/../v2/keys/k",
	} {
		for _, method := range []string{"GET", "PUT", "POST", "DELETE"} {
			answer := tell(t, m.peer, method+" "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			if !strings.HasPrefix(answer, "HTTP/1.1 404 ") {
				t.Errorf("where members speak, %s %s: %s", method, path, answer)
			}
		}
	}
	hello := "Connection: Upgrade\r\nUpgrade: quorate-peer/1\r\nQuorate-Cluster: 1\r\nQuorate-From: 2\r\nQuorate-To: 3\r\nQuorate-Epoch: 0\r\nQuorate-Kind: rpc\r\n"
	for _, path := range []string{"/quorate/peer", "/members", "/raft", "/raft/stream", "/raft/probing", "/raft/snapshot"} {
		answer := tell(t, m.address, "GET "+path+" HTTP/1.1\r\nHost: a\r\n"+hello+"\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 404 ") {
			t.Errorf("where clients speak, %s: %s", path, answer)
		}
	}
	// Who is no member is refused, and what is no HTTP ends nothing but its own connection.
	if answer := tell(t, m.peer, "GET /quorate/peer HTTP/1.1\r\nHost: a\r\n"+hello+"\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 412 ") {
		t.Errorf("a stranger among members: %s", answer)
	}
	for _, address := range []string{m.peer, m.address} {
		for _, text := range []string{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", strings.Repeat("\x00", 1000), "\r\n", "quorate-peer/1\r\n\r\n"} {
			tell(t, address, text)
		}
	}
	wait(t, "GET", "http://"+m.address+"/v2/keys/k", "", 200)
	wait(t, "GET", "http://"+m.peer+"/version", "", 200)
}

// What somebody must not know is in no line of the log, at any level, and on no page; and nobody can write
// lines of his own into the log.
func TestWhatIsInTheLog(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	args := serveArgs(t.TempDir(), "--log-level", "trace", "--log-format", "text", "--discovery-proxy", "http://joe:proxysecret@127.0.0.1:1", "--enable-pprof")
	m := start(t, args...)
	url := "http://" + m.address
	send := func(method, path, credentials, body string) {
		t.Helper()
		req, err := http.NewRequest(method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if name, password, ok := strings.Cut(credentials, ":"); ok {
			req.SetBasicAuth(name, password)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("User-Agent", "agent-of-the-client")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if page, _ := io.ReadAll(resp.Body); strings.Contains(string(page), "secret") && !strings.Contains(path, "/keys/") {
			t.Errorf("%s %s: %s", method, path, page)
		}
	}
	wait(t, "GET", url+"/health", "", 200)
	send("PUT", "/v2/auth/users/root", "", `{"user":"root","password":"rootsecret"}`)
	send("PUT", "/v2/auth/enable", "", "")
	send("PUT", "/v2/keys/k?value=querysecret", "root:rootsecret", "")
	send("PUT", "/v2/keys/k", "root:rootsecret", "value=valuesecret")
	send("GET", "/v2/keys/k", "root:wrongsecret", "")
	send("GET", "/v2/keys/k", "nobody:othersecret", "")
	send("PUT", "/v2/auth/users/root", "root:rootsecret", `{"user":"root","password":"newsecret"}`)
	for _, page := range []string{"/metrics", "/debug/vars", "/v2/stats/self", "/v2/stats/store", "/quorate/v1/status", "/v2/auth/users", "/v2/auth/users/root", "/v2/members", "/version"} {
		send("GET", page, "root:newsecret", "")
	}
	const line = "%0a2026-01-01T00:00:00Z%20[ERROR]%20forged%0d%1b[31m%00"
	send("PUT", "/v2/keys/a"+line, "root:newsecret", "value=x")
	send("GET", "/nowhere"+line, "root:newsecret", "")
	send("PUT", "/v2/auth/users/x"+line, "root:newsecret", "{}")
	send("DELETE", "/v2/members/1"+line, "root:newsecret", "")
	send("GET", "/v2/keys/k", "a\n2026-01-01T00:00:00Z [ERROR] forged\x1b[31m:x", "")
	send("GET", "/new?size="+line, "", "")
	tell(t, m.peer, "GET /a"+line+" HTTP/1.1\r\nHost: a\r\nQuorate-From: \x1b[31m\r\n\r\n")
	m.stop()
	if code := <-m.code; code != 0 {
		t.Errorf("ended with %d", code)
	}
	log := m.log.String()
	for _, never := range []string{"secret", "$2a$", "\x1b", "\r", "\x00", "\n2026-01-01"} {
		if strings.Contains(log, never) {
			t.Errorf("%q is in the log:\n%s", never, log)
		}
	}
	if !strings.Contains(log, "forged") {
		t.Errorf("requests are not in the log:\n%s", log)
	}
	lines := bufio.NewScanner(strings.NewReader(log))
	for lines.Scan() {
		var year int
		if _, err := fmt.Sscanf(lines.Text(), "%d-", &year); err != nil || year < 2000 {
			t.Errorf("a line that does not begin with the time: %q", lines.Text())
		}
	}
}
