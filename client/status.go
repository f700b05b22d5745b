package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/quorate/quorate/api"
)

// Version returns the versions of a member and of the cluster.
func (c *Client) Version(ctx context.Context) (api.Version, error) {
	var v api.Version
	err := c.call(ctx, http.MethodGet, "/version", nil, &v, http.StatusOK)
	return v, err
}

// Status returns how a member of Quorate sees itself and its cluster; etcd has nothing like it. Use
// [Client.At] to choose the member.
func (c *Client) Status(ctx context.Context) (api.MemberStatus, error) {
	var s api.MemberStatus
	err := c.call(ctx, http.MethodGet, "/quorate/v1/status", nil, &s, http.StatusOK)
	return s, err
}

// SelfStats returns what a member says of itself. Use [Client.At] to choose the member.
func (c *Client) SelfStats(ctx context.Context) (api.SelfStats, error) {
	var s api.SelfStats
	err := c.call(ctx, http.MethodGet, "/v2/stats/self", nil, &s, http.StatusOK)
	return s, err
}

// LeaderStats returns what the leader knows of the followers. Other members refuse with 403.
func (c *Client) LeaderStats(ctx context.Context) (api.LeaderStats, error) {
	var s api.LeaderStats
	err := c.call(ctx, http.MethodGet, "/v2/stats/leader", nil, &s, http.StatusOK)
	return s, err
}

// StoreStats returns the operation counters of a member.
func (c *Client) StoreStats(ctx context.Context) (api.StoreStats, error) {
	var s api.StoreStats
	err := c.call(ctx, http.MethodGet, "/v2/stats/store", nil, &s, http.StatusOK)
	return s, err
}

// Health asks the member at endpoint whether it can serve. false with a nil error is its own
// answer; an error means that it gave none.
func (c *Client) Health(ctx context.Context, endpoint string) (bool, error) {
	u, err := parseEndpoint(endpoint)
	if err != nil {
		return false, err
	}
	a, _, err := c.try(ctx, u, request{method: http.MethodGet, path: "/health"})
	if err != nil {
		return false, &url.Error{Op: "Get", URL: u.String() + "/health", Err: err}
	}
	// "true" from etcd, true from other servers.
	var body struct {
		Health any `json:"health"`
	}
	if json.Unmarshal(a.body, &body) == nil {
		switch body.Health {
		case "true", true:
			return true, nil
		case "false", false:
			return false, nil
		}
	}
	return false, fmt.Errorf("client: %s/health answered %d without a verdict", u, a.status)
}
