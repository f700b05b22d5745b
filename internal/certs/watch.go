package certs

import (
	"context"
	"os"
	"time"
)

// Watch looks at the files of all sources each time that tick has a value, and reloads them all
// when hup does, until ctx ends.
func Watch(ctx context.Context, tick <-chan time.Time, hup <-chan os.Signal, sources ...*Source) {
	for {
		look := (*Source).Poll
		select {
		case <-ctx.Done():
			return
		case <-tick:
		case <-hup:
			look = (*Source).Reload
		}
		for _, s := range sources {
			look(s)
		}
	}
}
