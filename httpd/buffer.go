package httpd

import "sync"

// maxPooled is the size above which a buffer is left to the garbage collector: one large listing
// must not keep its memory for ever.
const maxPooled = 64 << 10

// buffer is scratch space for one request: first its body, then its answer.
type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, 1024)} }}

func getBuffer() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) release() {
	if cap(b.b) <= maxPooled {
		buffers.Put(b)
	}
}
