package peer

import (
	"bufio"
	"bytes"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func someAppend(entries, size int) *raft.AppendEntriesRequest {
	req := &raft.AppendEntriesRequest{Term: 7, PrevLogEntry: 41, PrevLogTerm: 6, LeaderCommitIndex: 40}
	for i := range entries {
		req.Entries = append(req.Entries, &raft.Log{
			Index: 42 + uint64(i), Term: 7, Type: raft.LogCommand, Data: bytes.Repeat([]byte{byte(i)}, size),
			AppendedAt: time.Unix(1_700_000_000, 123_456_789).UTC(),
		})
	}
	return req
}

func TestAppendMessage(t *testing.T) {
	odd := someAppend(3, 10)
	odd.Entries[0].Type, odd.Entries[0].Data, odd.Entries[0].Extensions = raft.LogConfiguration, nil, []byte("e")
	odd.Entries[1].Data, odd.Entries[1].Extensions = []byte{}, []byte{}
	odd.Entries[2].AppendedAt = time.Time{}.UTC()
	for _, want := range []*raft.AppendEntriesRequest{someAppend(0, 0), someAppend(1, 1), someAppend(2, 300_000), odd} {
		b := appendMessage(nil, want)
		r := bufio.NewReader(bytes.NewReader(append(b, b...)))
		for range 2 {
			got, err := readMessage(r)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("read %+v, %v, want %+v", got, err, want)
			}
		}
	}
	whole := appendMessage(nil, odd)[4:]
	for n := range whole {
		got, err := parseMessage(whole[:n])
		if err == nil && (len(got.Entries) >= len(odd.Entries) || !bytes.Equal(appendMessage(nil, got)[4:], whole[:n])) {
			t.Errorf("the first %d bytes of %d were taken for %+v", n, len(whole), got)
		}
	}
}

// A leader that is lost while an answer is awaited ends the pipeline, and so does a follower's end.
func TestPipelineLost(t *testing.T) {
	for _, end := range []string{"follower", "pipeline", "transport"} {
		t.Run(end, func(t *testing.T) {
			from, to, id := transportPair(t, TransportConfig{HeartbeatTimeout: time.Hour})
			p, err := from.AppendEntriesPipeline(id, addressOf(id))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if _, err := p.AppendEntries(someAppend(1, 10), new(raft.AppendEntriesResponse)); err != nil {
				t.Fatal(err)
			}
			got := take(t, to).Command.(*raft.AppendEntriesRequest)
			if string(got.ID) != "a" || string(got.Addr) != "a" || string(got.Leader) != "a" || got.ProtocolVersion != 3 {
				t.Errorf("the follower got %+v", got)
			}
			switch end {
			case "follower":
				to.Close()
				select {
				case f := <-p.Consumer():
					if f.Error() == nil || f.Response().Success {
						t.Errorf("answer of a lost follower: %+v, %v", f.Response(), f.Error())
					}
				case <-time.After(patience):
					t.Fatal("raft does not learn that the follower is lost")
				}
			case "pipeline":
				p.Close()
			case "transport":
				from.Close()
			}
			eventually(t, "error of a lost pipeline", func() bool {
				_, err := p.AppendEntries(someAppend(1, 10), new(raft.AppendEntriesResponse))
				return err != nil
			})
		})
	}
}

func FuzzAppendMessage(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendMessage(nil, someAppend(2, 5))[4:])
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := parseMessage(b)
		if err != nil {
			return
		}
		again, err := parseMessage(appendMessage(nil, req)[4:])
		if err != nil || !reflect.DeepEqual(again, req) {
			t.Errorf("%+v was read again as %+v, %v", req, again, err)
		}
	})
}

func BenchmarkAppendMessage(b *testing.B) {
	for _, size := range []int{200, 20_000} {
		req := someAppend(1, size)
		message := appendMessage(nil, req)
		b.Run(fmt.Sprintf("encode/entries=1/size=%dB", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				message = appendMessage(message[:0], req)
			}
		})
		b.Run(fmt.Sprintf("decode/entries=1/size=%dB", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := parseMessage(message[4:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
