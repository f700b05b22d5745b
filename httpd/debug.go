package httpd

import (
	"bytes"
	"encoding/json"
	"expvar"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/gorilla/mux"
	"github.com/hashicorp/go-hclog"

	"github.com/quorate/quorate/api"
)

// debugVars serves what the process publishes through expvar, and what etcd adds to it. The command
// line is left out: anybody may read this, and there may be passwords in URLs.
func (s *Server) debugVars(w http.ResponseWriter, _ *http.Request) {
	extra := []struct {
		name  string
		value any
	}{
		{"file_descriptor_limit", fileDescriptorLimit()},
		{"raft.status", s.raftStatus()},
	}
	var out bytes.Buffer
	out.WriteByte('{')
	n := 0
	put := func(name, value string) {
		if n++; n > 1 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "\n%q: %s", name, value)
	}
	putExtra := func(before string) {
		for len(extra) > 0 && (before == "" || extra[0].name < before) {
			if text, err := json.Marshal(extra[0].value); err == nil {
				put(extra[0].name, string(text))
			}
			extra = extra[1:]
		}
	}
	expvar.Do(func(kv expvar.KeyValue) { // in the order of the names
		if kv.Key == "cmdline" {
			return
		}
		putExtra(kv.Key)
		put(kv.Key, kv.Value.String())
	})
	putExtra("")
	out.WriteString("\n}\n")
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Write(out.Bytes())
}

func fileDescriptorLimit() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return limit.Cur
}

// raftStatus has the names that etcd uses under raft.status, as far as they mean something here.
func (s *Server) raftStatus() any {
	type status struct {
		ID     string `json:"id"`
		Term   uint64 `json:"term"`
		Commit uint64 `json:"commit"`
		Lead   string `json:"lead"`
		State  string `json:"raftState"`
	}
	m := s.member.Load()
	if m == nil {
		return status{State: "StateFollower"}
	}
	st := status{ID: api.FormatID(m.MemberID()), State: m.SelfStats().State}
	st.Commit, st.Term = m.RaftState()
	if leader, ok := m.Leader(); ok {
		st.Lead = leader.ID
	}
	return st
}

// logLevels are the names that etcd knows, in words and in its one-letter and numbered forms.
var logLevels = map[string]hclog.Level{
	"CRITICAL": hclog.Error, "C": hclog.Error,
	"ERROR": hclog.Error, "0": hclog.Error, "E": hclog.Error,
	"WARNING": hclog.Warn, "1": hclog.Warn, "W": hclog.Warn, "WARN": hclog.Warn,
	"NOTICE": hclog.Info, "2": hclog.Info, "N": hclog.Info,
	"INFO": hclog.Info, "3": hclog.Info, "I": hclog.Info,
	"DEBUG": hclog.Debug, "4": hclog.Debug, "D": hclog.Debug,
	"TRACE": hclog.Trace, "5": hclog.Trace, "T": hclog.Trace,
}

// setLogLevel serves PUT /config/local/log with {"Level":"DEBUG"}.
func (s *Server) setLogLevel(w http.ResponseWriter, r *http.Request) {
	if m := s.member.Load(); m != nil && !m.may(r, Access{Kind: Admin}) {
		writeMessage(w, errAdminCredentials.Status, errAdminCredentials.Message)
		return
	}
	var in struct{ Level string }
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<10)).Decode(&in); err != nil {
		writeMessage(w, http.StatusBadRequest, "Invalid json body")
		return
	}
	level, ok := logLevels[strings.ToUpper(in.Level)]
	if !ok {
		writeMessage(w, http.StatusBadRequest, "Invalid log level "+in.Level)
		return
	}
	s.log.SetLevel(level)
	s.log.Info("log level changed", "level", level)
	w.WriteHeader(http.StatusNoContent)
}

// routePprof serves Go's profiles. They may take longer than a request usually may. They show what is
// in memory, so that under users and roles they are for those who may do everything.
func (s *Server) routePprof(rt *mux.Router) {
	handle := func(path string, h http.HandlerFunc) {
		rt.Handle(path, s.admin(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).SetWriteDeadline(time.Time{})
			http.NewResponseController(w).SetReadDeadline(time.Time{})
			h(w, r)
		}))
	}
	handle("/debug/pprof/cmdline", pprof.Cmdline)
	handle("/debug/pprof/profile", pprof.Profile)
	handle("/debug/pprof/symbol", pprof.Symbol)
	handle("/debug/pprof/trace", pprof.Trace)
	handle("/debug/pprof/", pprof.Index)
	handle("/debug/pprof/{name}", pprof.Index)
}
