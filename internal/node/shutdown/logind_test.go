package shutdown

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// bus starts a D-Bus of the test's own, and returns its address.
func bus(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "bus.conf")
	text := fmt.Sprintf(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>custom</type><listen>unix:path=%s/bus</listen><policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`, dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "dbus-daemon", "--config-file="+config, "--nofork", "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("this test needs dbus-daemon (make test installs it): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func connect(t *testing.T, address string) *dbus.Conn {
	t.Helper()
	c, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// logind is the part of logind and of systemd that is needed here.
type logind struct {
	conn *dbus.Conn
	// config is the drop-in that is read when it is told to.
	config string

	mu        sync.Mutex
	delay     time.Duration
	inhibitor *os.File // the other end of the one that was given
	asked     []string
}

// Get is that of the interface of properties.
func (l *logind) Get(iface, name string) (dbus.Variant, *dbus.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if iface != loginInterface || name != "InhibitDelayMaxUSec" {
		return dbus.Variant{}, dbus.MakeFailedError(fmt.Errorf("no property %s of %s", name, iface))
	}
	return dbus.MakeVariant(uint64(l.delay / time.Microsecond)), nil
}

func (l *logind) Inhibit(what, who, why, mode string) (dbus.UnixFD, *dbus.Error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inhibitor, l.asked = r, []string{what, who, why, mode}
	time.AfterFunc(time.Minute, func() { w.Close() }) // it has been sent by then
	return dbus.UnixFD(w.Fd()), nil
}

// KillUnit has the configuration be read.
func (l *logind) KillUnit(unit, _ string, signal int32) *dbus.Error {
	b, err := os.ReadFile(l.config)
	if err != nil || unit != "systemd-logind.service" || signal != 1 {
		return dbus.MakeFailedError(fmt.Errorf("%s, signal %d: %w", unit, signal, err))
	}
	var seconds int
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "InhibitDelayMaxSec="); ok {
			if _, err := fmt.Sscan(v, &seconds); err != nil {
				return dbus.MakeFailedError(err)
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = time.Duration(seconds) * time.Second
	return nil
}

// TestLogind checks what is said over D-Bus.
func TestLogind(t *testing.T) {
	address := bus(t)
	service := &logind{conn: connect(t, address), config: filepath.Join(t.TempDir(), "conf", overrideName), delay: 5 * time.Second}
	for iface, path := range map[string]dbus.ObjectPath{loginInterface: loginPath, "org.freedesktop.DBus.Properties": loginPath, "org.freedesktop.systemd1.Manager": "/org/freedesktop/systemd1"} {
		if err := service.conn.Export(service, path, iface); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{loginName, "org.freedesktop.systemd1"} {
		if r, err := service.conn.RequestName(name, 0); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
			t.Fatal(r, err)
		}
	}
	l := &Logind{conn: connect(t, address), config: filepath.Dir(service.config)}
	ctx := t.Context()
	if d, err := l.Delay(ctx); err != nil || d != 5*time.Second {
		t.Errorf("%v, %v", d, err)
	}
	if err := l.SetDelay(ctx, 90*time.Second); err != nil {
		t.Fatal(err)
	}
	if d, err := l.Delay(ctx); err != nil || d != 90*time.Second {
		t.Errorf("%v, %v", d, err)
	}
	release, err := l.Inhibit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(service.asked, "|"); got != "shutdown|kubelet|Kubelet needs time to handle node shutdown|delay" {
		t.Error(got)
	}
	events, err := l.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, begins := range []bool{true, false} {
		if err := service.conn.Emit(loginPath, loginInterface+".PrepareForShutdown", begins); err != nil {
			t.Fatal(err)
		}
		if got := <-events; got != begins {
			t.Errorf("%v, want %v", got, begins)
		}
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, ok := <-events; ok {
		t.Error("an event after the end of the connection")
	}
}
