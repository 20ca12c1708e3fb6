package supervise

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A process is held by its pidfd, so that it can be waited for and signalled
// without mistaking a later process with the same id for it.
//
// The descriptor belongs to the runtime's poller, which ends every wait before
// it closes the number. A wait of our own on the bare number would outlive the
// close and hold on to whatever file gets the number next, such as the pipe by
// which a starting program tells that it has started.
type process struct{ file *os.File }

// newProcess takes over a pidfd.
func newProcess(fd int) (*process, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch a process: %w", err)
	}
	return &process{os.NewFile(uintptr(fd), "pidfd")}, nil
}

// Ended is closed when the process has ended, or when p is closed.
func (p *process) Ended() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := p.file.SyscallConn()
		if err != nil {
			return // closed
		}
		conn.Read(func(fd uintptr) bool {
			for {
				n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
				if err != unix.EINTR {
					return n > 0
				}
			}
		})
	}()
	return ended
}

// Signal does nothing when the process has ended.
func (p *process) Signal(sig syscall.Signal) {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return
	}
	conn.Control(func(fd uintptr) { unix.PidfdSendSignal(int(fd), sig, nil, 0) })
}

func (p *process) Close() { p.file.Close() }
