package shutdown

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	loginName      = "org.freedesktop.login1"
	loginPath      = "/org/freedesktop/login1"
	loginInterface = "org.freedesktop.login1.Manager"
)

// Logind is the connection to systemd-logind on a D-Bus
// (https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.login1.html).
type Logind struct {
	conn *dbus.Conn
	// config is the folder of drop-ins of logind's configuration.
	config string
}

// logindConf is the folder of drop-ins of logind.conf(5).
const logindConf = "/etc/systemd/logind.conf.d"

// overrideName is the name of the drop-in that a kubelet writes.
const overrideName = "99-kubelet.conf"

// System connects to logind on the machine's bus.
func System() (Login, error) {
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		return nil, err
	}
	return &Logind{conn: conn, config: logindConf}, nil
}

// Close implements Login.
func (l *Logind) Close() error { return l.conn.Close() }

func (l *Logind) object() dbus.BusObject { return l.conn.Object(loginName, loginPath) }

// Delay implements Login.
func (l *Logind) Delay(ctx context.Context) (time.Duration, error) {
	var v dbus.Variant
	err := l.object().CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, loginInterface, "InhibitDelayMaxUSec").Store(&v)
	if err != nil {
		return 0, fmt.Errorf("InhibitDelayMaxUSec of logind: %w", err)
	}
	usec, ok := v.Value().(uint64)
	if !ok {
		return 0, fmt.Errorf("InhibitDelayMaxUSec of logind is a %s, wanted a number", v.Signature())
	}
	return time.Duration(usec) * time.Microsecond, nil
}

// SetDelay implements Login: by a drop-in of logind's configuration, which logind is told
// to read.
func (l *Logind) SetDelay(ctx context.Context, d time.Duration) error {
	text := fmt.Sprintf("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec=%.0f\n", d.Seconds())
	if err := errors.Join(os.MkdirAll(l.config, 0o755), os.WriteFile(filepath.Join(l.config, overrideName), []byte(text), 0o644)); err != nil {
		return fmt.Errorf("logind's configuration: %w", err)
	}
	const hangup = int32(1)
	err := l.conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1").
		CallWithContext(ctx, "org.freedesktop.systemd1.Manager.KillUnit", 0, "systemd-logind.service", "all", hangup).Err
	if err != nil {
		return fmt.Errorf("making logind read its configuration again: %w", err)
	}
	return nil
}

// Inhibit implements Login.
func (l *Logind) Inhibit(ctx context.Context) (func() error, error) {
	var fd dbus.UnixFD
	err := l.object().CallWithContext(ctx, loginInterface+".Inhibit", 0, "shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay").Store(&fd)
	if err != nil {
		return nil, fmt.Errorf("inhibiting shutdowns: %w", err)
	}
	return os.NewFile(uintptr(fd), "inhibitor").Close, nil
}

// Watch implements Login.
func (l *Logind) Watch(ctx context.Context) (<-chan bool, error) {
	if err := l.conn.AddMatchSignalContext(ctx, dbus.WithMatchObjectPath(loginPath), dbus.WithMatchInterface(loginInterface), dbus.WithMatchMember("PrepareForShutdown")); err != nil {
		return nil, fmt.Errorf("watching for shutdowns: %w", err)
	}
	signals := make(chan *dbus.Signal, 8)
	l.conn.Signal(signals)
	out := make(chan bool, 1)
	go func() {
		defer close(out)
		defer l.conn.RemoveSignal(signals)
		for {
			select {
			case s, ok := <-signals:
				if !ok {
					return // the connection has ended
				}
				if len(s.Body) == 0 || s.Name != loginInterface+".PrepareForShutdown" {
					continue
				}
				begins, ok := s.Body[0].(bool)
				if !ok {
					continue
				}
				select {
				case out <- begins:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}
