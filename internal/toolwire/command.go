package toolwire

import (
	"archive/tar"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// Run carries out a call from inside a job and returns its exit code.
// Interrupts arrive on the channel.
func Run(socket string, call Call, stdin io.Reader, stdout, stderr io.Writer, interrupts <-chan os.Signal) (int, error) {
	connection, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	command := &command{conn: NewConn(connection), stdin: stdin}
	if err := command.conn.SendJSON(KindCall, call); err != nil {
		return 0, err
	}
	go func() {
		for range interrupts {
			_ = command.conn.Send(KindInterrupt, nil) // a lost connection shows below
		}
	}()
	for {
		kind, payload, err := command.conn.Receive()
		if errors.Is(err, io.EOF) {
			return 0, errors.New("the endpoint of this job went away")
		}
		if err != nil {
			return 0, err
		}
		switch kind {
		case KindStdout:
			_, err = stdout.Write(payload)
		case KindStderr:
			_, err = stderr.Write(payload)
		case KindExit:
			if len(payload) != 4 {
				return 0, errors.New("malformed exit")
			}
			return int(binary.BigEndian.Uint32(payload)), nil
		case KindWantIn:
			go command.input()
		case KindTransfer:
			var transfer Transfer
			if err = json.Unmarshal(payload, &transfer); err == nil {
				err = command.transfer(transfer)
			}
		case KindWrite, KindWriteEnd:
			// Left over from a write that failed here.
		default:
			err = fmt.Errorf("unknown frame %q", kind)
		}
		if err != nil {
			return 0, err
		}
	}
}

// command is the job's end of a connection.
type command struct {
	conn  *Conn
	stdin io.Reader
}

func (c *command) input() {
	// A lost connection shows in the receiving loop.
	_, _ = io.Copy(c.conn.Writer(KindInput), c.stdin)
	_ = c.conn.Send(KindInputEnd, nil)
}

// transfer does what the endpoint asks; failures are told to it.
func (c *command) transfer(t Transfer) error {
	var err error
	switch t.Op {
	case OpRead:
		err = c.read(t.Path)
	case OpTar:
		err = c.tar(t.Path)
	case OpStat:
		err = c.stat(t.Path)
	case OpAgent:
		err = c.agent(t)
	case OpWrite:
		var fatal error
		if err, fatal = c.write(t); fatal != nil {
			return fatal
		}
	default:
		err = fmt.Errorf("unknown operation %q", t.Op)
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	return c.conn.Send(KindDone, []byte(text))
}

func (c *command) read(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(c.conn.Writer(KindData), file)
	return err
}

func (c *command) stat(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	kind := "file"
	if info.IsDir() {
		kind = "dir"
	}
	return c.conn.Send(KindData, []byte(kind))
}

// write receives a file until its end; the second error ends the connection.
func (c *command) write(t Transfer) (err, fatal error) {
	if t.Folder {
		err = os.MkdirAll(filepath.Dir(t.Path), 0o700)
	}
	var file *os.File
	if err == nil {
		file, err = os.OpenFile(t.Path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fs.FileMode(t.Mode))
	}
	for {
		kind, payload, fatal := c.conn.Receive()
		if fatal != nil {
			return nil, fatal
		}
		if kind == KindWriteEnd {
			break
		}
		if kind == KindWrite && err == nil {
			_, err = file.Write(payload)
		}
	}
	if file != nil {
		err = errors.Join(err, file.Close())
	}
	return err, nil
}

// maxAgentAnswer is OpenSSH's own bound of a message.
const maxAgentAnswer = 256 << 10

// agent asks the SSH agent at a socket.
func (c *command) agent(t Transfer) error {
	connection, err := net.Dial("unix", t.Path)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := connection.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(t.Message))), t.Message...)); err != nil {
		return err
	}
	var size [4]byte
	if _, err := io.ReadFull(connection, size[:]); err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(size[:])
	if length > maxAgentAnswer {
		return errors.New("the SSH agent's answer is too long")
	}
	answer := make([]byte, length)
	if _, err := io.ReadFull(connection, answer); err != nil {
		return err
	}
	return c.conn.Send(KindData, answer)
}

func (c *command) tar(root string) error {
	archive := tar.NewWriter(c.conn.Writer(KindData))
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || name == "." {
			return err
		}
		return addEntry(archive, path, name, entry)
	})
	return errors.Join(err, archive.Close())
}

func addEntry(archive *tar.Writer, path, name string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	link := ""
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	case !mode.IsRegular() && !mode.IsDir():
		return nil
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	header.Name, header.Format = filepath.ToSlash(name), tar.FormatPAX
	header.Uname, header.Gname = "", ""
	if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.CopyN(archive, file, header.Size)
	return err
}
