package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/quorate/quorate/api"
)

const membersPath = "/v2/members"

// Members reads and changes the members of the cluster. Refusals are *api.StatusError.
type Members struct {
	client *Client
}

// Members returns access to the members.
func (c *Client) Members() Members { return Members{c} }

// List returns the members in ascending order of their IDs. It works without a leader.
func (m Members) List(ctx context.Context) ([]api.Member, error) {
	var list struct {
		Members []api.Member `json:"members"`
	}
	err := m.client.call(ctx, http.MethodGet, membersPath, nil, &list, http.StatusOK)
	return list.Members, err
}

// Leader returns the member that leads.
func (m Members) Leader(ctx context.Context) (api.Member, error) {
	var leader api.Member
	err := m.client.call(ctx, http.MethodGet, membersPath+"/leader", nil, &leader, http.StatusOK)
	return leader, err
}

// Add announces a new member and returns it with its ID. Its process is started afterwards.
func (m Members) Add(ctx context.Context, peerURLs []string) (api.Member, error) {
	var added api.Member
	err := m.client.call(ctx, http.MethodPost, membersPath, memberBody{peerURLs}, &added, http.StatusCreated)
	return added, err
}

// Update changes the peer URLs of a member.
func (m Members) Update(ctx context.Context, id string, peerURLs []string) error {
	return m.client.call(ctx, http.MethodPut, membersPath+"/"+id, memberBody{peerURLs}, nil, http.StatusNoContent)
}

// Remove removes a member for ever.
func (m Members) Remove(ctx context.Context, id string) error {
	return m.client.call(ctx, http.MethodDelete, membersPath+"/"+id, nil, nil, http.StatusNoContent)
}

// TransferLeadership lets another member lead, the given one unless id is empty, and returns the one that
// does. Only Quorate can do that.
func (m Members) TransferLeadership(ctx context.Context, id string) (api.Member, error) {
	r := request{method: http.MethodPost, path: "/quorate/v1/leader"}
	if id != "" {
		r.query = url.Values{"to": {id}}
	}
	var leader api.Member
	a, err := m.client.do(ctx, r)
	if err != nil {
		return leader, err
	}
	return leader, decode(a, &leader, http.StatusOK)
}

type memberBody struct {
	PeerURLs []string `json:"peerURLs"`
}

// call sends a JSON body, or none, and decodes a JSON answer.
func (c *Client) call(ctx context.Context, method, path string, body, into any, ok ...int) error {
	r := request{method: method, path: path}
	if body != nil {
		var err error
		if r.body, err = json.Marshal(body); err != nil {
			return err
		}
		r.contentType = "application/json"
	}
	a, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	return decode(a, into, ok...)
}
