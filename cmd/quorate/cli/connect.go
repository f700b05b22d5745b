package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quorate/quorate/client"
)

const (
	defaultEndpoint = "http://127.0.0.1:2379"
	// The second port is the one that etcd had before it got its own from IANA.
	defaultEndpoints = defaultEndpoint + ",http://127.0.0.1:4001"
)

// globals are the flags that all verbs have (spec cli.md 1).
type globals struct {
	endpoints, endpoint, peers string
	discoverySRV               string
	insecureDiscovery          bool
	insecureSkipVerify         bool
	noSync                     bool
	output                     string
	username                   string
	certFile, keyFile, caFile  string
	timeout, totalTimeout      time.Duration
	debug                      bool
	configFile                 string
	file                       fileSettings // what configFile says

	getenv    func(string) string
	lookupSRV func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

func (g *globals) addFlags(f *pflag.FlagSet) {
	f.StringVarP(&g.endpoints, "endpoints", "C", "", "client URLs of members, comma-separated (default "+defaultEndpoints+")")
	f.StringVar(&g.endpoint, "endpoint", "", "old name of --endpoints")
	f.StringVar(&g.peers, "peers", "", "old name of --endpoints")
	f.StringVarP(&g.discoverySRV, "discovery-srv", "D", "", "find the endpoints in the SRV records of this domain")
	f.BoolVar(&g.insecureDiscovery, "insecure-discovery", false, "accept SRV records of plain-text endpoints")
	f.BoolVar(&g.insecureSkipVerify, "insecure-skip-tls-verify", false, "do not verify the servers' certificates (for tests only)")
	f.BoolVar(&g.noSync, "no-sync", false, "use the endpoints as given, without asking the cluster for its own")
	f.StringVarP(&g.output, "output", "o", "simple", "output format: simple, extended or json")
	f.StringVarP(&g.username, "username", "u", "", "user, or user:password; asks for the password when there is none")
	f.StringVar(&g.certFile, "cert-file", "", "client certificate (PEM)")
	f.StringVar(&g.keyFile, "key-file", "", "key of the client certificate (PEM)")
	f.StringVar(&g.caFile, "ca-file", "", "verify servers by this CA bundle (PEM) instead of the system's roots")
	f.DurationVar(&g.timeout, "timeout", 2*time.Second, "wait this long for each endpoint")
	f.DurationVar(&g.totalTimeout, "total-timeout", 5*time.Second, "wait this long for the whole command, watches excepted")
	f.BoolVar(&g.debug, "debug", false, "print requests as curl commands on standard error")
	f.StringVar(&g.configFile, "config", "", "YAML file with endpoints, discovery-srv, username, cert-file, key-file and ca-file; flags\nand environment win over it")
	for _, old := range []string{"endpoint", "peers"} {
		_ = f.MarkHidden(old) // fails only for a flag that is not there
	}
}

// env looks a setting up as QUORATE_NAME, then as ETCDCTL_NAME.
func (g *globals) env(name string) string {
	return cmp.Or(g.getenv("QUORATE_"+name), g.getenv("ETCDCTL_"+name))
}

// given returns the endpoints that the user named, or "".
func (g *globals) given() string {
	return cmp.Or(g.endpoints, g.env("ENDPOINTS"), g.endpoint, g.env("ENDPOINT"), g.peers, g.env("PEERS"))
}

// session is one run of a verb: a client and where to print.
type session struct {
	client    *client.Client
	config    client.Config // what client was made of
	keys      *client.Keys
	transport http.RoundTripper // for what is not the v2 API
	in        io.Reader
	out, err  io.Writer
	format    string
	writing   bool // the request changes something
}

// open checks the global flags and makes a client; it may ask for a password. Nothing is sent yet,
// except to DNS.
func (g *globals) open(cmd *cobra.Command) (*session, error) {
	s := &session{
		in:     cmd.InOrStdin(),
		out:    cmd.OutOrStdout(),
		err:    cmd.ErrOrStderr(),
		format: g.output,
	}
	if err := g.checkOutput(); err != nil {
		return nil, err
	}
	var err error
	if g.file, err = readSettings(cmp.Or(g.configFile, g.env("CONFIG"))); err != nil {
		return nil, usagef("--config: %v", err)
	}
	endpoints, domain, err := g.findEndpoints(cmd.Context(), s.err)
	if err != nil {
		return nil, err
	}
	config, err := g.config(cmd)
	if err != nil {
		return nil, err
	}
	config.Endpoints = endpoints
	config.TLS.ServerName = domain
	s.transport = &http.Transport{TLSClientConfig: config.TLS}
	s.config = config
	if s.client, err = client.New(config); err != nil {
		return nil, usagef("%v", err)
	}
	s.keys = s.client.Keys("")
	return s, nil
}

func (g *globals) checkOutput() error {
	switch g.output {
	case "simple", "extended", "json":
		return nil
	}
	return exitf(exitUsage, "Unsupported output format: %s", g.output)
}

// config is the client's configuration without endpoints.
func (g *globals) config(cmd *cobra.Command) (client.Config, error) {
	config := client.Config{DialTimeout: g.timeout, HeaderTimeout: g.timeout, UserAgent: "quorate"}
	var err error
	if config.TLS, err = g.tls(); err != nil {
		return config, usagef("%v", err)
	}
	if config.Username, config.Password, err = g.credentials(cmd); err != nil {
		return config, err
	}
	if g.debug {
		config.OnRequest = func(r *http.Request) { fmt.Fprintln(cmd.ErrOrStderr(), "cURL Command:", curl(r)) }
	}
	return config, nil
}

// connect replaces the endpoints, unless told otherwise, by those that the members advertise.
func (g *globals) connect(ctx context.Context, s *session) error {
	if !g.noSync {
		given := strings.Join(s.client.Endpoints(), ",")
		if g.debug {
			fmt.Fprintf(s.err, "start to sync cluster using endpoints(%s)\n", given)
		}
		switch err := s.client.Sync(ctx); {
		case errors.Is(err, client.ErrNoEndpoints):
			fmt.Fprintln(s.err, "etcd cluster has no published client endpoints.")
			fmt.Fprintf(s.err, "Try '--no-sync' if you want to access non-published client endpoints(%s).\n", given)
			return failure(exitServer, err)
		case err != nil:
			return failure(exitConnect, err)
		}
		if g.debug {
			fmt.Fprintf(s.err, "got endpoints(%s) after sync\n", strings.Join(s.client.Endpoints(), ","))
		}
	}
	if g.debug {
		fmt.Fprintln(s.err, "Cluster-Endpoints:", strings.Join(s.client.Endpoints(), ", "))
	}
	return nil
}

// within opens a session and runs a verb within --total-timeout, which does not count the time that
// somebody takes to type a password.
func (g *globals) within(cmd *cobra.Command, run func(context.Context, *session) error) error {
	s, err := g.open(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), g.totalTimeout)
	defer cancel()
	if err := g.connect(ctx, s); err != nil {
		return err
	}
	return run(ctx, s)
}

// bulk opens a session for a verb that moves many keys: there is no limit for the whole, and answers
// may take longer, unless --timeout was given.
func (g *globals) bulk(cmd *cobra.Command) (*session, error) {
	if !cmd.Flags().Changed("timeout") {
		g.timeout = bulkTimeout
	}
	s, err := g.open(cmd)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), g.totalTimeout)
	defer cancel()
	return s, g.connect(ctx, s)
}

// onKeys runs a verb on keys within --total-timeout.
func (g *globals) onKeys(cmd *cobra.Command, run func(context.Context, *session) error) error {
	return g.within(cmd, func(ctx context.Context, s *session) error {
		err := run(ctx, s)
		if err != nil && s.writing && unknown(err) {
			return &ExitError{Code: exitServer, Err: err,
				Text: "Error:  " + describe(err) + "\nThe outcome is unknown: the change may still take effect."}
		}
		return failure(exitServer, err)
	})
}

// onCluster runs a verb on members, users or roles within --total-timeout.
func (g *globals) onCluster(cmd *cobra.Command, run func(context.Context, *session) error) error {
	return g.within(cmd, func(ctx context.Context, s *session) error {
		return adminFailure(run(ctx, s))
	})
}

// findEndpoints returns the endpoints and, when they come from DNS, the domain that their
// certificates must be made for: a forged record must not lead to a stranger with a valid
// certificate of his own.
func (g *globals) findEndpoints(ctx context.Context, stderr io.Writer) (endpoints []string, domain string, err error) {
	given := g.given()
	domain = cmp.Or(g.discoverySRV, g.env("DISCOVERY_SRV"))
	if domain == "" && given == "" {
		given, domain = g.file.Endpoints, g.file.DiscoverySRV
	}
	if domain == "" {
		for e := range strings.SplitSeq(cmp.Or(given, defaultEndpoints), ",") {
			if e = strings.TrimSpace(e); e != "" {
				endpoints = append(endpoints, e)
			}
		}
		return endpoints, "", nil
	}
	var failed error
	for _, service := range []struct{ name, scheme string }{{"etcd-client-ssl", "https"}, {"etcd-client", "http"}} {
		_, records, err := g.lookupSRV(ctx, service.name, "tcp", domain)
		if err != nil {
			failed = err
			continue
		}
		for _, r := range records {
			host := net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
			endpoints = append(endpoints, service.scheme+"://"+host)
		}
	}
	if len(endpoints) == 0 {
		return nil, "", exitf(exitUsage, "Error:  no SRV record of client endpoints in %s: %v", domain, failed)
	}
	if g.insecureDiscovery {
		return endpoints, "", nil
	}
	secure := endpoints[:0]
	for _, e := range endpoints {
		if strings.HasPrefix(e, "https://") {
			secure = append(secure, e)
			continue
		}
		fmt.Fprintf(stderr, "ignoring discovered insecure endpoint %q\n", e)
	}
	if len(secure) == 0 {
		// etcdctl goes on with the default endpoints, which are not what the user asked for.
		return nil, "", exitf(exitUsage, "Error:  %s has plain-text endpoints only; --insecure-discovery accepts them", domain)
	}
	return secure, domain, nil
}

func (g *globals) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: g.insecureSkipVerify}
	certFile := cmp.Or(g.certFile, g.env("CERT_FILE"), g.file.CertFile)
	keyFile := cmp.Or(g.keyFile, g.env("KEY_FILE"), g.file.KeyFile)
	if (certFile == "") != (keyFile == "") {
		return nil, errors.New("--cert-file and --key-file need each other")
	}
	if certFile != "" {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if caFile := cmp.Or(g.caFile, g.env("CA_FILE"), g.file.CAFile); caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("CA bundle: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA bundle %s holds no certificate", caFile)
		}
	}
	return config, nil
}

func (g *globals) credentials(cmd *cobra.Command) (user, password string, err error) {
	given := cmp.Or(g.username, g.env("USERNAME"), g.file.Username)
	if given == "" {
		return "", "", nil
	}
	user, password, found := strings.Cut(given, ":")
	if !found {
		password, err = askPassword(cmd, "Password: ")
	}
	return user, password, err
}

// curl writes a request as a command line that repeats it, apart from credentials.
func curl(r *http.Request) string {
	line := "curl -X " + r.Method + " " + shellQuote(r.URL.String())
	if r.GetBody == nil {
		return line
	}
	body, err := r.GetBody()
	if err != nil {
		return line
	}
	b, err := io.ReadAll(body)
	if err != nil || len(b) == 0 {
		return line
	}
	if r.Header.Get("Content-Type") == "application/json" {
		line += ` -H "Content-Type: application/json"`
		b = hidePassword(b)
		return line + " -d " + shellQuote(string(b))
	}
	return line + ` -d "` + string(b) + `"` // a form: all that is special to a shell is escaped in it
}

func hidePassword(body []byte) []byte {
	var fields map[string]any
	if json.Unmarshal(body, &fields) != nil || fields["password"] == nil {
		return body
	}
	fields["password"] = "***"
	hidden, err := json.Marshal(fields)
	if err != nil {
		return nil
	}
	return hidden
}

// shellQuote quotes what a shell would not take literally.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=@%+,", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
