package configs

import (
	"fmt"
	"io"
	"strings"
)

// ShortUsage is what follows the message about a command line that could not be parsed.
const ShortUsage = `Usage:

  quorate serve [flags]
    Start a server. Without flags: one member, clients on http://localhost:2379,
    data in ./default.etcd.

  quorate serve --config-file FILE
    Take options from a YAML file; flags and environment variables win over it.

  quorate serve --version
    Show the version.

  quorate serve -h | --help
    Show all flags.
`

// WriteHelp writes the short usage and all options with their defaults.
func WriteHelp(w io.Writer) error {
	defaults := &settings{Config: Default()}
	var b strings.Builder
	b.WriteString(ShortUsage)
	b.WriteString(`
Every flag can also be an environment variable: --data-dir is QUORATE_DATA_DIR, or
ETCD_DATA_DIR where that is not set; and a key of the configuration file: data-dir.
`)
	for _, g := range groups {
		if g.title == "" {
			continue
		}
		fmt.Fprintf(&b, "\n%s:\n", g.title)
		for _, o := range g.options {
			fmt.Fprintf(&b, "  --%s %s\n", o.name, o.show(defaults))
			for line := range strings.SplitSeq(o.usage, "\n") {
				fmt.Fprintf(&b, "    %s\n", line)
			}
		}
	}
	b.WriteString("\nOptions of etcd that have no meaning here are accepted and ignored with a warning.\n")
	_, err := io.WriteString(w, b.String())
	return err
}
