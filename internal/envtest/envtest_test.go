package envtest

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keelson.dev/keelson/test/harness"
)

// asChild makes the test's program start WithParent and print a line when it
// ends; asParent makes it start a child and end.
const asChild, asParent = "KEELSON_ENVTEST_CHILD", "KEELSON_ENVTEST_PARENT"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asChild) != "":
		ctx, cancel, err := WithParent(context.Background())
		if err != nil {
			panic(err)
		}
		defer cancel()
		_, _ = os.Stdout.WriteString("ready\n")
		<-ctx.Done()
		_, _ = os.Stdout.WriteString(context.Cause(ctx).Error() + "\n")
	case os.Getenv(asParent) != "":
		child := harness.Self(asChild + "=1")
		child.Stdout = os.Stdout
		if err := child.Start(); err != nil {
			panic(err)
		}
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends it
	default:
		os.Exit(m.Run())
	}
}

func TestWithParent(t *testing.T) {
	parent := harness.Self(asParent + "=1")
	stdin, err := parent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	parent.Stdout = in
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	line := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, line); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	if err := parent.Wait(); err != nil {
		t.Fatal(err)
	}
	// The pipe ends with the child.
	rest, err := io.ReadAll(out)
	if err != nil || !strings.HasPrefix(string(rest), errParent.Error()) {
		t.Errorf("the child said %q, %v", rest, err)
	}
}

func TestLink(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 { // again over what is there
		if err := Link(dir, "/bin/true"); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range Programs {
		if err := exec.Command(filepath.Join(dir, name)).Run(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	etcd := filepath.Join(dir, "etcd")
	if err := os.Remove(etcd); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(etcd, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Link(dir, "/bin/true"); err == nil || !strings.Contains(err.Error(), "no link") {
		t.Errorf("a file was replaced: %v", err)
	}
}

func TestFind(t *testing.T) {
	want := Folder{Path: filepath.Join(t.TempDir(), "data"), NoSync: true}
	address := "http://" + harness.FreeAddress(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, []string{address}, want) }()
	harness.Succeeds(t, "the server's health", func() error {
		resp, err := http.Get(address + "/health")
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
	if got, ok, err := Find(ctx, []string{address}); err != nil || !ok || got != want {
		t.Errorf("found %v %v %v, want %v", got, ok, err, want)
	}
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	for _, servers := range [][]string{nil, {other.URL}, {address, address}, {"https://127.0.0.1:1"}} {
		if _, ok, err := Find(ctx, servers); ok || err != nil {
			t.Errorf("%v: found %v, %v", servers, ok, err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
