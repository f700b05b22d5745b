package cli

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
)

// print shows the answer of a key request or an event in the chosen format (spec cli.md 2).
func (s *session) print(r *client.Response) error {
	switch s.format {
	case "extended":
		fmt.Fprintln(s.out, "Key:", r.Node.Key)
		fmt.Fprintln(s.out, "Created-Index:", r.Node.CreatedIndex)
		fmt.Fprintln(s.out, "Modified-Index:", r.Node.ModifiedIndex)
		if r.PrevNode != nil {
			fmt.Fprintln(s.out, "PrevNode.Value:", value(r.PrevNode))
		}
		fmt.Fprintln(s.out, "TTL:", r.Node.TTL)
		fmt.Fprintln(s.out, "Index:", r.Index)
		if r.Action != "delete" {
			fmt.Fprintln(s.out)
			fmt.Fprintln(s.out, value(r.Node))
		}
	case "json":
		return s.printJSON(struct {
			Action   string    `json:"action"`
			Node     *jsonNode `json:"node"`
			PrevNode *jsonNode `json:"prevNode"`
		}{r.Action, toJSON(r.Node), toJSON(r.PrevNode)})
	default:
		if r.Action == "delete" {
			fmt.Fprintln(s.out, "PrevNode.Value:", value(r.PrevNode))
		} else {
			fmt.Fprintln(s.out, value(r.Node))
		}
	}
	return nil
}

// printDir is print for directories, of which there is nothing to say in the simple format.
func (s *session) printDir(r *client.Response) error {
	if s.format == "simple" {
		return nil
	}
	return s.print(r)
}

func (s *session) printJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s\n", b)
	return err
}

// jsonNode is a node as etcdctl prints it, which is not how the server sends it: value and nodes
// are always there, and the created index comes first.
type jsonNode struct {
	Key           string      `json:"key"`
	Dir           bool        `json:"dir,omitempty"`
	Value         string      `json:"value"`
	Nodes         []*jsonNode `json:"nodes"`
	CreatedIndex  uint64      `json:"createdIndex"`
	ModifiedIndex uint64      `json:"modifiedIndex"`
	Expiration    *time.Time  `json:"expiration,omitempty"`
	TTL           int64       `json:"ttl,omitempty"`
}

func toJSON(n *api.Node) *jsonNode {
	if n == nil {
		return nil
	}
	j := &jsonNode{
		Key:           n.Key,
		Dir:           n.Dir,
		Value:         value(n),
		CreatedIndex:  n.CreatedIndex,
		ModifiedIndex: n.ModifiedIndex,
		Expiration:    n.Expiration,
		TTL:           n.TTL,
	}
	for _, child := range n.Nodes {
		j.Nodes = append(j.Nodes, toJSON(child))
	}
	return j
}

// value returns the value of a node, and "" for what has none.
func value(n *api.Node) string {
	if n == nil || n.Value == nil {
		return ""
	}
	return *n.Value
}
