package tree_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/quorate/quorate/fsm/tree"
)

// One goroutine writes, in batches; others read and watch.
func Example() {
	t := tree.New(1000)
	w, err := t.Watch("/app", true, true, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer w.Close()

	b := t.Begin(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	_, err = b.Do(tree.Op{Action: tree.Set, Path: "/app/port", Value: "80"})
	fmt.Println(err)
	_, err = b.Do(tree.Op{Action: tree.Create, Path: "/app/port", Value: "8080"})
	fmt.Println(err)
	b.End()

	e, err := w.Next(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	os.Stdout.Write(e.JSON())
	a, err := t.Get("/app", false, true)
	if err != nil {
		fmt.Println(err)
		return
	}
	os.Stdout.Write(a.AppendJSON(nil, t.Clock()))
	// Output:
	// <nil>
	// 105: Key already exists (/app/port) [1]
	// {"action":"set","node":{"key":"/app/port","value":"80","modifiedIndex":1,"createdIndex":1}}
	// {"action":"get","node":{"key":"/app","dir":true,"nodes":[{"key":"/app/port","value":"80","modifiedIndex":1,"createdIndex":1}],"modifiedIndex":1,"createdIndex":1}}
}
