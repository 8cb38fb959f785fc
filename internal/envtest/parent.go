package envtest

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// errParent is the cause of the end of WithParent's context.
var errParent = errors.New("the process that started this one has ended")

// WithParent returns a context that ends with ctx, and when the process that started
// this one has ended. A test that was killed leaves nothing running.
func WithParent(ctx context.Context) (context.Context, context.CancelFunc, error) {
	parent := os.Getppid()
	fd, err := unix.PidfdOpen(parent, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("watching process %d, which started this one: %w", parent, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	if os.Getppid() != parent {
		cancel(errParent) // it ended before it was watched
	}
	go func() {
		defer unix.Close(fd)
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err == nil {
				cancel(errParent)
			}
			return
		}
	}()
	return ctx, func() { cancel(context.Canceled) }, nil
}
