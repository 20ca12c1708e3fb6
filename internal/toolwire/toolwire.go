// Package toolwire is what the small commands in a job's PATH (docker, trivy)
// and the job's endpoint on the host say to each other over a unix socket.
//
// It owns the frames and both ends' bookkeeping of file transfers. The command
// sends its arguments and then serves the endpoint: it prints what it is told,
// gives its input when asked, and reads or writes files of the job, because
// only the command sees the job's file system. It must import the standard
// library only: the commands stay a few megabytes.
package toolwire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Socket is where a job finds its endpoint.
const Socket = "/run/slipway/job.sock"

// Call is a command's first message.
type Call struct {
	Tool string            `json:"tool"` // docker or trivy
	Args []string          `json:"args"`
	Dir  string            `json:"dir"`
	Env  map[string]string `json:"env"`
}

// Kind tells what a frame is.
type Kind byte

// Kinds of frames from the command.
const (
	KindCall      Kind = 'A' // JSON Call; first and once
	KindInput     Kind = 'I' // bytes of standard input
	KindInputEnd  Kind = 'i'
	KindInterrupt Kind = 'K'
	KindData      Kind = 'D' // bytes of a transfer the endpoint asked for
	KindDone      Kind = 'F' // end of a transfer: error text, empty when it went well
)

// Kinds of frames from the endpoint.
const (
	KindStdout   Kind = 'O'
	KindStderr   Kind = 'E'
	KindExit     Kind = 'X' // 4 bytes; last
	KindWantIn   Kind = 'S' // send standard input from now on
	KindTransfer Kind = 'R' // JSON Transfer
	KindWrite    Kind = 'W' // bytes of a file to write
	KindWriteEnd Kind = 'w'
)

// Transfer operations.
const (
	OpRead  = "read"  // send a file's content
	OpTar   = "tar"   // send a folder as a tar stream
	OpWrite = "write" // write a file
	OpStat  = "stat"  // send "dir" or "file"
	OpAgent = "agent" // give a message to an SSH agent's socket and send its answer
)

// Transfer asks the command for work on the job's files. One transfer runs at
// a time.
type Transfer struct {
	Op      string `json:"op"`
	Path    string `json:"path"`
	Mode    uint32 `json:"mode,omitempty"`    // for OpWrite
	Folder  bool   `json:"folder,omitempty"`  // for OpWrite: make the file's folder, for its owner alone
	Message []byte `json:"message,omitempty"` // for OpAgent, without its length
}

// maxFrame bounds what a peer can make the other end keep in memory.
const maxFrame = 1 << 20

// Conn reads and writes frames. Send is safe for concurrent use, Receive is
// not.
type Conn struct {
	mu sync.Mutex
	rw io.ReadWriter
}

// NewConn wraps a connection.
func NewConn(rw io.ReadWriter) *Conn { return &Conn{rw: rw} }

// Send writes one frame, in pieces when it is large.
func (c *Conn) Send(kind Kind, payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		piece := payload[:min(len(payload), maxFrame)]
		var header [5]byte
		header[0] = byte(kind)
		binary.BigEndian.PutUint32(header[1:], uint32(len(piece)))
		if _, err := c.rw.Write(append(header[:], piece...)); err != nil {
			return err
		}
		if payload = payload[len(piece):]; len(payload) == 0 {
			return nil
		}
	}
}

// SendJSON writes one frame of JSON.
func (c *Conn) SendJSON(kind Kind, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if len(raw) > maxFrame {
		return errors.New("the command line is too long")
	}
	return c.Send(kind, raw)
}

// Receive reads one frame.
func (c *Conn) Receive() (Kind, []byte, error) {
	var header [5]byte
	if _, err := io.ReadFull(c.rw, header[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size > maxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes", size)
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(c.rw, payload); err != nil {
		return 0, nil, err
	}
	return Kind(header[0]), payload, nil
}

// Writer sends everything written to it as frames of one kind.
func (c *Conn) Writer(kind Kind) io.Writer { return frameWriter{c, kind} }

type frameWriter struct {
	conn *Conn
	kind Kind
}

func (w frameWriter) Write(p []byte) (int, error) {
	if err := w.conn.Send(w.kind, p); err != nil {
		return 0, err
	}
	return len(p), nil
}
