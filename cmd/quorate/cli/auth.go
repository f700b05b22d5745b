package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
)

func (g *globals) authCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "auth",
		Short: "Switch authentication on or off",
		RunE:  needsSubcommand,
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "enable",
			Short: "Demand credentials from now on",
			Long: `Demand credentials from now on. A user named root must exist. Requests without credentials
have the rights of role guest, which starts with all of them: revoke what strangers must
not do.`,
			Example: `  quorate user add root:secret
  quorate auth enable
  quorate -u root:secret role revoke guest --path '/*' --write`,
			RunE: g.withName("", func(ctx context.Context, s *session, _ string) error {
				if err := s.client.Auth().Enable(ctx); err != nil {
					return err
				}
				fmt.Fprintln(s.out, "Authentication Enabled")
				return nil
			}),
		},
		&cobra.Command{
			Use:     "disable",
			Short:   "Let everybody do everything again",
			Example: `  quorate -u root:secret auth disable`,
			RunE: g.withName("", func(ctx context.Context, s *session, _ string) error {
				if err := s.client.Auth().Disable(ctx); err != nil {
					return err
				}
				fmt.Fprintln(s.out, "Authentication Disabled")
				return nil
			}),
		},
	)
	return cmd
}

// withName adapts a verb with exactly one argument, called what; what == "" means no argument.
func (g *globals) withName(what string, run func(context.Context, *session, string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		var name string
		switch {
		case what == "" && len(args) > 0:
			return exitf(exitUsage, "No arguments accepted")
		case what != "" && (len(args) != 1 || args[0] == ""):
			return exitf(exitUsage, "Please provide a %s", what)
		case what != "":
			name = args[0]
		}
		return g.onCluster(cmd, func(ctx context.Context, s *session) error { return run(ctx, s, name) })
	}
}

func (g *globals) userCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Add, change and remove users",
		RunE:  needsSubcommand,
	}
	cmd.AddCommand(
		g.userAddCommand(),
		&cobra.Command{
			Use:   "list",
			Short: "List all users",
			RunE: g.withName("", func(ctx context.Context, s *session, _ string) error {
				users, err := s.client.Auth().Users(ctx)
				for _, u := range users {
					fmt.Fprintln(s.out, u.Name)
				}
				return err
			}),
		},
		&cobra.Command{
			Use:   "get NAME",
			Short: "Show the roles of a user",
			RunE: g.withName("username", func(ctx context.Context, s *session, name string) error {
				u, err := s.client.Auth().User(ctx, name)
				if err != nil {
					return err
				}
				var roles []string
				for _, r := range u.Roles {
					roles = append(roles, r.Name)
				}
				fmt.Fprintf(s.out, "User: %s\nRoles:  %s\n", u.Name, strings.Join(roles, " "))
				return nil
			}),
		},
		g.userPasswdCommand(),
		g.userRolesCommand("grant NAME --roles ROLE[,ROLE...]", "Give roles to a user", client.Auth.GrantRoles),
		g.userRolesCommand("revoke NAME --roles ROLE[,ROLE...]", "Take roles from a user", client.Auth.RevokeRoles),
		&cobra.Command{
			Use:   "remove NAME",
			Short: "Remove a user",
			RunE: g.withName("username", func(ctx context.Context, s *session, name string) error {
				if err := s.client.Auth().RemoveUser(ctx, name); err != nil {
					return err
				}
				fmt.Fprintf(s.out, "User %s removed\n", name)
				return nil
			}),
		},
	)
	return cmd
}

func (g *globals) userAddCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "add NAME[:PASSWORD]",
		Short: "Add a user",
		Long:  `Add a user. The password is asked for when it is not given.`,
		Example: `  quorate user add root
  quorate user add bob:secret`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var password string
			if len(args) == 1 {
				var given bool
				if args[0], password, given = strings.Cut(args[0], ":"); !given {
					var err error
					if password, err = askPassword(cmd, "New password: "); err != nil {
						return err
					}
				}
			}
			return g.withName("username", func(ctx context.Context, s *session, name string) error {
				// The server takes the same request for a change of the password.
				exists, err := userExists(ctx, s, name)
				if err != nil {
					return err
				}
				if exists {
					return exitf(exitUsage, "User %s already exists", name)
				}
				if err := s.client.Auth().AddUser(ctx, name, password); err != nil {
					return err
				}
				fmt.Fprintf(s.out, "User %s created\n", name)
				return nil
			})(cmd, args)
		},
	}
}

func (g *globals) userPasswdCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "passwd NAME",
		Short: "Change the password of a user",
		RunE: func(cmd *cobra.Command, args []string) error {
			var password string
			if len(args) == 1 {
				var err error
				if password, err = askPassword(cmd, "New password: "); err != nil {
					return err
				}
			}
			return g.withName("username", func(ctx context.Context, s *session, name string) error {
				exists, err := userExists(ctx, s, name)
				if err != nil {
					return err
				}
				if !exists {
					return exitf(exitUsage, "auth: User %s does not exist.", name)
				}
				if err := s.client.Auth().SetPassword(ctx, name, password); err != nil {
					return err
				}
				fmt.Fprintln(s.out, "Password updated")
				return nil
			})(cmd, args)
		},
	}
}

func (g *globals) userRolesCommand(use, short string, change func(client.Auth, context.Context, string, []string) error) *cobra.Command {
	var roles []string
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && len(roles) == 0 {
				return exitf(exitUsage, "No roles specified; please use `--roles`")
			}
			return g.withName("username", func(ctx context.Context, s *session, name string) error {
				if err := change(s.client.Auth(), ctx, name, roles); err != nil {
					return err
				}
				fmt.Fprintf(s.out, "User %s updated\n", name)
				return nil
			})(cmd, args)
		},
	}
	cmd.Flags().StringSliceVar(&roles, "roles", nil, "names of roles, comma-separated")
	return cmd
}

// userExists asks for a user. One that has a role which does not exist is not shown by the server,
// but it is there.
func userExists(ctx context.Context, s *session, name string) (bool, error) {
	_, err := s.client.Auth().User(ctx, name)
	var status *api.StatusError
	if asStatus(err, &status) && status.Status == http.StatusNotFound {
		return strings.HasPrefix(status.Message, "auth: Role "), nil
	}
	return err == nil, err
}

// asStatus finds a refusal with a message in err.
func asStatus(err error, status **api.StatusError) bool { return errors.As(err, status) }

func (g *globals) roleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "role",
		Short: "Add, change and remove roles",
		RunE:  needsSubcommand,
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "add NAME",
			Short: "Add a role without any permission",
			RunE: g.withName("role name", func(ctx context.Context, s *session, name string) error {
				_, err := s.client.Auth().Role(ctx, name)
				var status *api.StatusError
				switch {
				case err == nil:
					return exitf(exitUsage, "Role %s already exists", name)
				case !asStatus(err, &status) || status.Status != http.StatusNotFound:
					return err
				}
				if err := s.client.Auth().AddRole(ctx, name); err != nil {
					return err
				}
				fmt.Fprintf(s.out, "Role %s created\n", name)
				return nil
			}),
		},
		&cobra.Command{
			Use:   "list",
			Short: "List all roles",
			RunE: g.withName("", func(ctx context.Context, s *session, _ string) error {
				roles, err := s.client.Auth().Roles(ctx)
				for _, r := range roles {
					fmt.Fprintln(s.out, r.Name)
				}
				return err
			}),
		},
		&cobra.Command{
			Use:   "get NAME",
			Short: "Show what a role may read and write",
			RunE: g.withName("role name", func(ctx context.Context, s *session, name string) error {
				r, err := s.client.Auth().Role(ctx, name)
				if err != nil {
					return err
				}
				fmt.Fprintf(s.out, "Role: %s\n", r.Name)
				fmt.Fprintln(s.out, "KV Read:")
				for _, p := range r.Permissions.KV.Read {
					fmt.Fprintf(s.out, "\t%s\n", p)
				}
				fmt.Fprintln(s.out, "KV Write:")
				for _, p := range r.Permissions.KV.Write {
					fmt.Fprintf(s.out, "\t%s\n", p)
				}
				return nil
			}),
		},
		g.rolePathCommand("grant NAME --path PATTERN --read|--write|--readwrite", "Let a role read or write keys", client.Auth.GrantPermissions),
		g.rolePathCommand("revoke NAME --path PATTERN --read|--write|--readwrite", "Take a permission from a role", client.Auth.RevokePermissions),
		&cobra.Command{
			Use:   "remove NAME",
			Short: "Remove a role",
			RunE: g.withName("role name", func(ctx context.Context, s *session, name string) error {
				if err := s.client.Auth().RemoveRole(ctx, name); err != nil {
					return err
				}
				fmt.Fprintf(s.out, "Role %s removed\n", name)
				return nil
			}),
		},
	)
	return cmd
}

func (g *globals) rolePathCommand(use, short string, change func(client.Auth, context.Context, string, client.Patterns) error) *cobra.Command {
	var path string
	var read, write, both bool
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long: short + `. A final * of the pattern stands for anything that follows; without it only
that one key is meant. "/app/*" does not cover /app itself.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				switch {
				case path == "":
					return exitf(exitUsage, "No path specified; please use `--path`")
				case path[0] != '/':
					return exitf(exitUsage, "Not canonical path; please use `--path=/%s`", path)
				case count(read, write, both) != 1:
					return exitf(exitUsage, "Please specify exactly one of --read, --write or --readwrite")
				}
			}
			return g.withName("role name", func(ctx context.Context, s *session, name string) error {
				var p client.Patterns
				if read || both {
					p.Read = []string{path}
				}
				if write || both {
					p.Write = []string{path}
				}
				if _, err := s.client.Auth().Role(ctx, name); err != nil {
					return err
				}
				if err := change(s.client.Auth(), ctx, name, p); err != nil {
					return err
				}
				fmt.Fprintf(s.out, "Role %s updated\n", name)
				return nil
			})(cmd, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "path", "", "pattern of keys, such as /app/*")
	f.BoolVar(&read, "read", false, "permission to read")
	f.BoolVar(&write, "write", false, "permission to write")
	f.BoolVar(&both, "readwrite", false, "permission to read and write")
	f.BoolVar(&both, "rw", false, "short for --readwrite")
	_ = f.MarkHidden("rw")
	return cmd
}

func count(flags ...bool) int {
	n := 0
	for _, f := range flags {
		if f {
			n++
		}
	}
	return n
}
