package plain

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Response is the answer to a plain request. The handler calls Status, then Header and HeaderUint,
// then Body or Stream.
type Response struct {
	b       []byte
	start   int  // of what is to be sent in b: before it is room that Body may need
	closing bool // the connection ends with this answer
	conn    *conn
	err     error // of a piece that Stream has sent
	// lastCall makes any answer the last one.
	lastCall *atomic.Bool
}

// maxDigits is what the length of a body needs at most.
const maxDigits = 20

// maxPooled is the size above which a buffer is not used again. Those below are given up by the pool
// when the garbage collector runs, so a large listing keeps its memory only while others follow.
const maxPooled = 4 << 20

var responses = sync.Pool{New: func() any { return &Response{b: make([]byte, 0, 1<<10)} }}

func (w *Response) release() {
	if cap(w.b) <= maxPooled {
		w.b, w.start, w.conn, w.err = w.b[:0], 0, nil, nil
		responses.Put(w)
	}
}

// Status begins the answer.
func (w *Response) Status(code int) {
	w.b = append(w.b[:0], make([]byte, maxDigits)...)
	w.start = maxDigits
	if code == http.StatusOK {
		w.b = append(w.b, "HTTP/1.1 200 OK\r\n"...)
		return
	}
	w.b = append(w.b, "HTTP/1.1 "...)
	w.b = strconv.AppendInt(w.b, int64(code), 10)
	w.b = append(w.b, ' ')
	w.b = append(w.b, http.StatusText(code)...)
	w.b = append(w.b, "\r\n"...)
}

// Header adds a header. Neither name nor value may have anything that is special there.
func (w *Response) Header(name, value string) {
	w.b = append(w.b, name...)
	w.b = append(w.b, ": "...)
	w.b = append(w.b, value...)
	w.b = append(w.b, "\r\n"...)
}

// HeaderUint adds a header whose value is a number.
func (w *Response) HeaderUint(name string, value uint64) {
	w.b = append(w.b, name...)
	w.b = append(w.b, ": "...)
	w.b = strconv.AppendUint(w.b, value, 10)
	w.b = append(w.b, "\r\n"...)
}

// Body ends the answer with what render appends. The headers Date and Content-Length come by
// themselves.
func (w *Response) Body(render func([]byte) []byte) {
	b := appendDate(w.b, time.Now())
	b = append(b, "Content-Length: "...)
	length := len(b)
	b = w.endHead(b)
	body := len(b)
	b = render(b)

	// Now that the length is known, what comes before it moves into the room to let it in.
	var text [maxDigits]byte
	digits := strconv.AppendInt(text[:0], int64(len(b)-body), 10)
	w.start -= len(digits)
	copy(b[w.start:], b[maxDigits:length])
	copy(b[length-len(digits):], digits)
	w.b = b
}

// endHead appends what follows the last header.
func (w *Response) endHead(b []byte) []byte {
	if w.closing = w.closing || w.lastCall.Load(); w.closing {
		b = append(b, "\r\nConnection: close"...)
	}
	return append(b, "\r\n\r\n"...)
}

// chunkHead stands for the length of a chunk, which may begin with zeros.
const chunkHead = "00000000\r\n"

// Stream ends the answer with a body whose length is not known yet, in chunks. render appends it to the
// buffer that it gets. Whenever that has become long it hands it to send, and goes on with the buffer
// that send returns. What cannot be sent is dropped, and the connection ends then.
func (w *Response) Stream(render func(b []byte, send func([]byte) []byte) []byte) {
	b := appendDate(w.b, time.Now())
	b = w.endHead(append(b, "Transfer-Encoding: chunked"...))
	head := len(b) // of the chunk in the buffer
	endChunk := func(b []byte) []byte {
		const digits = "0123456789abcdef"
		length := len(b) - head - len(chunkHead)
		for i := head + len(chunkHead) - len("\r\n") - 1; length > 0; i-- {
			b[i] = digits[length&15]
			length >>= 4
		}
		return append(b, "\r\n"...)
	}
	b = render(append(b, chunkHead...), func(b []byte) []byte {
		b = endChunk(b)
		if w.err == nil {
			w.err = w.conn.send(b[w.start:])
		}
		w.start, head = 0, 0
		return append(b[:0], chunkHead...)
	})
	if len(b) > head+len(chunkHead) {
		b = endChunk(b)
	} else {
		b = b[:head]
	}
	w.b = append(b, "0\r\n\r\n"...)
}

// bytes returns the answer, or what Stream has left of it.
func (w *Response) bytes() []byte { return w.b[w.start:] }

// dateLine is the header Date of all answers of one second.
type dateLine struct {
	second int64
	text   string
}

var date atomic.Pointer[dateLine]

func appendDate(b []byte, now time.Time) []byte {
	d := date.Load()
	if second := now.Unix(); d == nil || d.second != second {
		d = &dateLine{second: second, text: "Date: " + now.UTC().Format(http.TimeFormat) + "\r\n"}
		date.Store(d)
	}
	return append(b, d.text...)
}
