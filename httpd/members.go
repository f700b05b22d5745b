package httpd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api"
)

// membersMethods is in the order in which Allow has them.
var membersMethods = []string{"GET", "POST", "DELETE", "PUT"}

var (
	errAdminCredentials = &api.StatusError{Status: http.StatusUnauthorized, Message: "Insufficient credentials"}
	errNoLeader         = &api.StatusError{Status: http.StatusServiceUnavailable, Message: "During election"}
	errNotFound         = &api.StatusError{Status: http.StatusNotFound, Message: "Not found"}
)

// members serves /v2/members and what is below it. The checks come in the order of etcd: method,
// authorisation, ID, content type, JSON, URLs; the rest is the backend's (spec members 2).
func (s *Server) members(w http.ResponseWriter, r *http.Request, m *member) error {
	if r.Method != http.MethodGet && !m.may(r, Access{Kind: Admin}) {
		return errAdminCredentials
	}
	w.Header()[api.HeaderClusterID] = m.clusterID
	rest := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/v2/members"), "/")

	start := time.Now()
	switch r.Method {
	case http.MethodGet:
		return listMembers(w, m, rest)
	case http.MethodPost:
		return s.addMember(w, r, m, start)
	}
	if rest == "" {
		methodNotAllowed(w)
		return nil
	}
	id, err := api.ParseID(rest)
	if err != nil {
		return noSuchMember(rest)
	}
	if r.Method == http.MethodPut {
		return s.updateMember(w, r, m, id, start)
	}
	ctx, cancel := s.work(w, start)
	defer cancel()
	if err := m.RemoveMember(ctx, id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// addMember ignores what follows /v2/members in the path, as etcd does.
func (s *Server) addMember(w http.ResponseWriter, r *http.Request, m *member, start time.Time) error {
	urls, err := s.readPeerURLs(w, r)
	if err != nil {
		return err
	}
	ctx, cancel := s.work(w, start)
	defer cancel()
	added, err := m.AddMember(ctx, urls)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, memberObject(added), true)
}

func (s *Server) updateMember(w http.ResponseWriter, r *http.Request, m *member, id uint64, start time.Time) error {
	urls, err := s.readPeerURLs(w, r)
	if err != nil {
		return err
	}
	ctx, cancel := s.work(w, start)
	defer cancel()
	if err := m.UpdateMember(ctx, id, urls); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// transferLeadership serves POST /quorate/v1/leader: another voter leads, the one that the parameter to
// names if there is one. The answer is that member, once the one that answers follows it.
func (s *Server) transferLeadership(w http.ResponseWriter, r *http.Request, m *member) error {
	if !m.may(r, Access{Kind: Admin}) {
		return errAdminCredentials
	}
	var to uint64
	if text := r.URL.Query().Get("to"); text != "" {
		var err error
		if to, err = api.ParseID(text); err != nil || to == 0 {
			return noSuchMember(text)
		}
	}
	ctx, cancel := s.work(w, time.Now())
	defer cancel()
	leader, err := m.TransferLeadership(ctx, to)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, memberObject(leader), true)
}

// listMembers answers from this member's own knowledge, with or without a leader.
func listMembers(w http.ResponseWriter, m *member, rest string) error {
	switch rest {
	case "":
		list := struct {
			Members []api.Member `json:"members"`
		}{[]api.Member{}}
		for _, one := range m.Members() {
			list.Members = append(list.Members, memberObject(one))
		}
		return writeJSON(w, http.StatusOK, list, true)
	case "leader":
		leader, ok := m.Leader()
		if !ok {
			return errNoLeader
		}
		return writeJSON(w, http.StatusOK, memberObject(leader), true)
	}
	return errNotFound
}

// memberObject makes empty lists show as [], never as null.
func memberObject(m api.Member) api.Member {
	if m.PeerURLs == nil {
		m.PeerURLs = []string{}
	}
	if m.ClientURLs == nil {
		m.ClientURLs = []string{}
	}
	return m
}

func noSuchMember(id string) error {
	return &api.StatusError{Status: http.StatusNotFound, Message: "No such member: " + id}
}

// readPeerURLs reads the body of a POST or PUT.
func (s *Server) readPeerURLs(w http.ResponseWriter, r *http.Request) ([]string, error) {
	mediaType := r.Header.Get("Content-Type")
	if i := strings.IndexByte(mediaType, ';'); i >= 0 {
		mediaType = strings.TrimSpace(strings.ToLower(mediaType[:i]))
	}
	if mediaType != "application/json" {
		return nil, &api.StatusError{Status: http.StatusUnsupportedMediaType,
			Message: fmt.Sprintf("Bad Content-Type %s, accept application/json", mediaType)}
	}
	badRequest := func(err error) error {
		return &api.StatusError{Status: http.StatusBadRequest, Message: err.Error()}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.opts.MaxRequestBytes))
	if tooLong := s.bodyTooLong(err); tooLong != nil {
		return nil, tooLong
	}
	if err != nil {
		return nil, badRequest(err)
	}
	var request struct {
		PeerURLs []string `json:"peerURLs"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, badRequest(err)
	}
	urls, err := checkPeerURLs(request.PeerURLs)
	if err != nil {
		return nil, badRequest(err)
	}
	return urls, nil
}

// checkPeerURLs returns the URLs sorted and each once, or says what is wrong with the first bad one.
func checkPeerURLs(urls []string) ([]string, error) {
	if len(urls) == 0 {
		return nil, errors.New("no valid URLs given")
	}
	checked := make([]string, 0, len(urls))
	for _, text := range urls {
		text = strings.TrimSpace(text)
		u, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		switch u.Scheme {
		case "http", "https", "unix", "unixs":
		default:
			return nil, fmt.Errorf("URL scheme must be http, https, unix, or unixs: %s", text)
		}
		if _, _, err := net.SplitHostPort(u.Host); err != nil {
			return nil, fmt.Errorf(`URL address does not have the form "host:port": %s`, text)
		}
		if u.Path != "" {
			return nil, fmt.Errorf("URL must not contain a path: %s", text)
		}
		checked = append(checked, u.String())
	}
	slices.Sort(checked)
	return slices.Compact(checked), nil
}
