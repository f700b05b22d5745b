package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
)

// registryPath is where new tokens go when the user names no directory. A discovery service keeps its
// own there too, and the underscore hides them from listings.
const registryPath = client.DefaultPrefix + "/_etcd/registry"

func (g *globals) discoveryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "discovery",
		Short: "Make, show and remove discovery tokens",
		Long: `Make, show and remove discovery tokens. A token is a directory in the store of another, running
cluster. The servers of a new cluster are started with its URL (--discovery), register
there, and so find each other. A token serves one cluster, once.`,
		RunE: needsSubcommand,
	}
	cmd.AddCommand(g.discoveryNewCommand(), g.discoveryShowCommand(), g.discoveryForgetCommand())
	return cmd
}

func (g *globals) discoveryNewCommand() *cobra.Command {
	var size int
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "new [URL]",
		Short: "Make a token and print its URL",
		Long: `Make a token for a new cluster and print its URL.

URL is a directory of tokens, whose path contains /v2/keys, or a discovery service such as
https://discovery.example. Without it the token goes to the endpoint.`,
		Example: `  quorate discovery new --size 5
  quorate discovery new http://10.0.0.1:2379/v2/keys/discovery
  quorate discovery new https://discovery.example`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("one URL expected, got %d arguments", len(args))
			}
			if size < 1 {
				return usagef("--size must be at least 1")
			}
			return g.atURL(cmd, first(args), func(ctx context.Context, s *session, u *url.URL) error {
				if len(args) == 1 && !strings.Contains(u.Path, client.DefaultPrefix) {
					return s.askService(ctx, u, size)
				}
				if len(args) == 0 {
					u.Path = registryPath
				}
				var token [16]byte
				rand.Read(token[:]) // never fails
				u.Path = path.Join(u.Path, hex.EncodeToString(token[:]))
				keys := s.client.Keys(u.Path)
				// The size comes last: a token without it is none.
				if _, err := keys.Set(ctx, "", "", client.SetOptions{Dir: true, PrevExist: new(bool), TTL: ttl}); err != nil {
					return err
				}
				if _, err := keys.Create(ctx, "_config/size", strconv.Itoa(size), 0); err != nil {
					return err
				}
				fmt.Fprintln(s.out, u)
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&size, "size", 3, "number of members of the new cluster")
	cmd.Flags().DurationVar(&ttl, "ttl", 7*24*time.Hour, "remove the token after this time; 0 keeps it")
	return cmd
}

// askService gets a token from a discovery service, which may want its own idea of the time to live.
func (s *session) askService(ctx context.Context, u *url.URL, size int) error {
	u = u.JoinPath("new")
	u.RawQuery = url.Values{"size": {strconv.Itoa(size)}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	res, err := s.transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", u, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if err != nil {
		return fmt.Errorf("ask %s: %w", u, err)
	}
	text := strings.TrimSpace(string(body))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: %s: %s", u, res.Status, text)
	}
	fmt.Fprintln(s.out, text)
	return nil
}

func (g *globals) discoveryShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show URL",
		Short:   "Show who has registered with a token",
		Example: `  quorate discovery show http://10.0.0.1:2379/v2/keys/discovery/6b58ca08b4d6ab2e1b4f0a09ba1b9d5c`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("URL of the token required")
			}
			return g.atURL(cmd, args[0], func(ctx context.Context, s *session, u *url.URL) error {
				keys := s.client.Keys(u.Path)
				r, err := keys.Get(ctx, "_config/size", client.GetOptions{})
				if err != nil {
					return err
				}
				size, err := strconv.Atoi(value(r.Node))
				if err != nil {
					return fmt.Errorf("the size of the token is %q", value(r.Node))
				}
				if r, err = keys.Get(ctx, "", client.GetOptions{}); err != nil {
					return err
				}
				return s.printToken(size, r.Node.Nodes)
			})
		},
	}
}

// printToken lists registrations in the order in which they count.
func (s *session) printToken(size int, nodes []*api.Node) error {
	slices.SortFunc(nodes, func(a, b *api.Node) int { return cmp.Compare(a.CreatedIndex, b.CreatedIndex) })
	if s.format == "json" {
		type registration struct {
			ID     string `json:"id"`
			Value  string `json:"value"`
			Member bool   `json:"member"`
		}
		list := []registration{}
		for i, n := range nodes {
			list = append(list, registration{path.Base(n.Key), value(n), i < size})
		}
		return s.printJSON(map[string]any{"size": size, "registered": list})
	}
	fmt.Fprintf(s.out, "size %d, registered %d", size, len(nodes))
	switch missing := size - len(nodes); {
	case missing > 0:
		fmt.Fprintf(s.out, ", waiting for %d\n", missing)
	default:
		fmt.Fprintln(s.out, ", complete")
	}
	for i, n := range nodes {
		late := ""
		if i >= size {
			late = "  (too late)"
		}
		fmt.Fprintf(s.out, "%s  %s%s\n", path.Base(n.Key), value(n), late)
	}
	return nil
}

func (g *globals) discoveryForgetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "forget URL [MEMBER-ID]",
		Short: "Remove a token, or one registration",
		Long: `Remove a token, or, with MEMBER-ID, one registration, so that a server whose first start
failed can register again. A cluster that was made with the token does not need it any more.`,
		Example: `  quorate discovery forget http://10.0.0.1:2379/v2/keys/discovery/6b58ca08b4d6ab2e1b4f0a09ba1b9d5c`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("URL of the token required, and perhaps a member ID")
			}
			return g.atURL(cmd, args[0], func(ctx context.Context, s *session, u *url.URL) error {
				keys := s.client.Keys(u.Path)
				if len(args) == 2 {
					_, err := keys.Delete(ctx, args[1], client.DeleteOptions{})
					return err
				}
				// What has no size is no token: a typing error must not remove a directory of something else.
				if _, err := keys.Get(ctx, "_config/size", client.GetOptions{}); err != nil {
					return err
				}
				_, err := keys.Delete(ctx, "", client.DeleteOptions{Recursive: true})
				return err
			})
		},
	}
}

// atURL runs a verb whose endpoint is part of its argument, or is the first endpoint if that is "".
func (g *globals) atURL(cmd *cobra.Command, rawURL string, run func(context.Context, *session, *url.URL) error) error {
	u := &url.URL{}
	if rawURL != "" {
		var err error
		if u, err = url.Parse(rawURL); err != nil {
			return usagef("%v", err)
		}
		if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return usagef("%q is no URL such as http://HOST:PORT/v2/keys/discovery", rawURL)
		}
		g.endpoints = (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
	}
	s, err := g.open(cmd)
	if err != nil {
		return err
	}
	if rawURL == "" {
		if u, err = url.Parse(s.client.Endpoints()[0]); err != nil {
			return usagef("%v", err)
		}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), g.totalTimeout)
	defer cancel()
	return failure(exitServer, run(ctx, s, u))
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
