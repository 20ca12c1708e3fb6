package toolwire

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync"
)

// Session is the endpoint's end of one call. Transfers may be asked for from
// several goroutines; they run one after the other.
type Session struct {
	Call
	conn     *Conn
	transfer sync.Mutex

	input     *io.PipeReader
	inputEnd  *io.PipeWriter
	wantInput sync.Once
	data      chan []byte
	done      chan error
	ended     chan struct{} // the connection is gone
	quit      chan struct{} // nobody wants frames any more
}

// Serve reads a call from the connection, has handle carry it out and sends
// its exit code. The context ends when the command is interrupted or gone.
func Serve(ctx context.Context, connection net.Conn, handle func(context.Context, *Session) int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { connection.Close() })
	defer stop()
	defer connection.Close()
	conn := NewConn(connection)
	kind, payload, err := conn.Receive()
	if err != nil {
		return err
	}
	s := &Session{conn: conn, data: make(chan []byte), done: make(chan error, 1), ended: make(chan struct{}), quit: make(chan struct{})}
	s.input, s.inputEnd = io.Pipe()
	if kind != KindCall {
		return fmt.Errorf("the first frame is %q", kind)
	}
	if err := json.Unmarshal(payload, &s.Call); err != nil {
		return fmt.Errorf("read call: %w", err)
	}
	call, interrupt := context.WithCancel(ctx)
	defer interrupt()
	receiving := make(chan struct{})
	go func() {
		defer close(receiving)
		s.receive(interrupt)
	}()
	code := handle(call, s)
	var exit [4]byte
	binary.BigEndian.PutUint32(exit[:], uint32(code))
	err = conn.Send(KindExit, exit[:])
	stop()
	close(s.quit)
	s.input.Close()
	connection.Close()
	<-receiving
	return err
}

// receive sorts the command's frames until the connection ends.
func (s *Session) receive(interrupt func()) {
	defer close(s.ended)
	defer interrupt()
	for {
		kind, payload, err := s.conn.Receive()
		if err != nil {
			s.inputEnd.CloseWithError(io.ErrUnexpectedEOF)
			return
		}
		switch kind {
		case KindInput:
			if _, err := s.inputEnd.Write(payload); err != nil {
				continue // nobody reads the input any more
			}
		case KindInputEnd:
			s.inputEnd.Close()
		case KindInterrupt:
			interrupt()
		case KindData:
			select {
			case s.data <- payload:
			case <-s.quit:
			}
		case KindDone:
			var failed error
			if len(payload) > 0 {
				failed = errors.New(string(payload))
			}
			select {
			case s.done <- failed:
			case <-s.quit:
			}
		}
	}
}

// Stdout prints in the job.
func (s *Session) Stdout() io.Writer { return s.conn.Writer(KindStdout) }

// Stderr prints in the job.
func (s *Session) Stderr() io.Writer { return s.conn.Writer(KindStderr) }

// Stdin is the command's standard input.
func (s *Session) Stdin() io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		s.wantInput.Do(func() { _ = s.conn.Send(KindWantIn, nil) }) // a lost connection ends the pipe
		return s.input.Read(p)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// CopyFile writes a file of the job to w. fs.ErrNotExist is not told apart:
// the error is the command's text.
func (s *Session) CopyFile(ctx context.Context, w io.Writer, path string) error {
	return s.fetch(ctx, w, Transfer{Op: OpRead, Path: path})
}

// CopyTree writes a folder of the job to w as a tar stream.
func (s *Session) CopyTree(ctx context.Context, w io.Writer, path string) error {
	return s.fetch(ctx, w, Transfer{Op: OpTar, Path: path})
}

// IsDir reports whether a path of the job is a folder.
func (s *Session) IsDir(ctx context.Context, path string) (bool, error) {
	var kind limitedBuffer
	if err := s.fetch(ctx, &kind, Transfer{Op: OpStat, Path: path}); err != nil {
		return false, err
	}
	return string(kind) == "dir", nil
}

// AskAgent gives a message to the SSH agent at a socket of the job and returns
// its answer, both without their length.
func (s *Session) AskAgent(ctx context.Context, socket string, message []byte) ([]byte, error) {
	var answer limitedBuffer
	err := s.fetch(ctx, &answer, Transfer{Op: OpAgent, Path: socket, Message: message})
	return answer, err
}

type limitedBuffer []byte

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if len(*b)+len(p) > maxAgentAnswer {
		return 0, errors.New("answer too long")
	}
	*b = append(*b, p...)
	return len(p), nil
}

func (s *Session) fetch(ctx context.Context, w io.Writer, t Transfer) error {
	s.transfer.Lock()
	defer s.transfer.Unlock()
	if err := s.conn.SendJSON(KindTransfer, t); err != nil {
		return err
	}
	var failed error
	for {
		select {
		case piece := <-s.data:
			if failed == nil {
				_, failed = w.Write(piece)
			}
		case err := <-s.done:
			return errors.Join(failed, err)
		case <-s.ended:
			return io.ErrUnexpectedEOF
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// WriteFile writes a file inside the job.
func (s *Session) WriteFile(ctx context.Context, path string, mode fs.FileMode, r io.Reader) error {
	return s.write(ctx, Transfer{Op: OpWrite, Path: path, Mode: uint32(mode.Perm())}, r)
}

// WriteFileWithFolder is WriteFile, and makes the folder of the file.
func (s *Session) WriteFileWithFolder(ctx context.Context, path string, mode fs.FileMode, r io.Reader) error {
	return s.write(ctx, Transfer{Op: OpWrite, Path: path, Mode: uint32(mode.Perm()), Folder: true}, r)
}

func (s *Session) write(ctx context.Context, t Transfer, r io.Reader) error {
	s.transfer.Lock()
	defer s.transfer.Unlock()
	if err := s.conn.SendJSON(KindTransfer, t); err != nil {
		return err
	}
	_, copyErr := io.Copy(s.conn.Writer(KindWrite), r)
	if err := s.conn.Send(KindWriteEnd, nil); err != nil {
		return err
	}
	select {
	case err := <-s.done:
		return errors.Join(copyErr, err)
	case <-s.ended:
		return io.ErrUnexpectedEOF
	case <-ctx.Done():
		return ctx.Err()
	}
}
