package peer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A frame on an rpc connection, little endian:
//
//	length   uint32  of the payload
//	type     uint8   call, reply, failure, send or ping
//	kind     uint8   of a call or a send: the store's business
//	code     uint16  of a failure
//	id       uint64  chosen by the caller, repeated in the reply or failure
//	payload  length bytes; the text of a failure
const frameHeader = 16

// MaxPayload is the largest payload of a message, in bytes.
const MaxPayload = 64 << 20

// frameChunk is how much is allocated for a payload before any of it was received.
const frameChunk = 256 << 10

const (
	frameCall uint8 = iota + 1
	frameReply
	frameFailure
	frameSend
	framePing
)

type frame struct {
	typ     uint8
	kind    Kind
	code    uint16
	id      uint64
	payload []byte
}

var errFrameTooLarge = errors.New("frame is larger than allowed")

// appendFrame appends the frame f with this payload; f.payload is not looked at.
func appendFrame(b []byte, f frame, payload []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, f.typ, byte(f.kind))
	b = binary.LittleEndian.AppendUint16(b, f.code)
	b = binary.LittleEndian.AppendUint64(b, f.id)
	return append(b, payload...)
}

// readFrame reads one frame. The payload is freshly allocated, and no faster than its bytes arrive:
// a length is only a promise.
func readFrame(r *bufio.Reader) (frame, error) {
	h, err := r.Peek(frameHeader)
	if err != nil {
		if err == io.EOF && len(h) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	n := binary.LittleEndian.Uint32(h)
	f := frame{typ: h[4], kind: Kind(h[5]), code: binary.LittleEndian.Uint16(h[6:]), id: binary.LittleEndian.Uint64(h[8:])}
	r.Discard(frameHeader)
	if n > MaxPayload {
		return frame{}, fmt.Errorf("%w: %d bytes", errFrameTooLarge, n)
	}
	if n > 0 {
		f.payload, err = readPayload(r, int(n))
	}
	return f, err
}

func readPayload(r io.Reader, n int) ([]byte, error) {
	b := make([]byte, min(n, frameChunk))
	for have := 0; ; {
		m, err := io.ReadFull(r, b[have:])
		have += m
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil || have == n {
			return b, err
		}
		grown := make([]byte, min(n, 2*have))
		copy(grown, b)
		b = grown
	}
}
