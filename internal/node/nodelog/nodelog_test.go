package nodelog

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHandler checks what is answered to files and queries. The journal is a script that
// knows one unit, and prints its arguments.
func TestHandler(t *testing.T) {
	base := t.TempDir()
	dir, journal := filepath.Join(base, "log"), filepath.Join(base, "journalctl")
	for name, text := range map[string]string{"log/syslog": "text", "log/web.log": "one\nTWO\ntwo b\nthree\n", "log/db/db.log": "db", "secret": "secret",
		"journalctl": "#!/bin/sh\n[ $1 = --field ] && echo ssh.service && exit\nfor a in \"$@\"; do echo \"$a\"; done\n"} {
		path := filepath.Join(base, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil { //nolint:gosec // a program among them
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../secret", filepath.Join(dir, "escape.log")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "db", "db.log"), filepath.Join(dir, "inside.log")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(dir, "all")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := &Handler{Dir: dir, Query: true, Journal: journal}
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/syslog", 200, "text"},
		{"/?query=/syslog", 200, "text"},
		{"/escape.log", 404, "404 page not found"},
		{"/all/etc/passwd", 404, "404 page not found"},
		{"/all" + base + "/log/syslog", 200, "text"},
		{"/inside.log", 200, "db"},
		{"/?query=/inside.log", 200, "db"},
		{"/?query=/escape.log", 406, "file does not exist"},
		{"/pipe", 500, "Internal Server Error"}, // at once
		{"/?query=/db/db.log", 200, "db"},
		{"/?query=/../secret", 406, "no such file or directory"},
		{"/?query=/none", 406, "no such file or directory"},
		{"/?query=ssh", 200, "--utc\n--no-pager\n--output=short-precise\n--unit=ssh.service\n"},
		{"/?query=ssh.service&tailLines=3&pattern=a%20b&boot=-1&sinceTime=2026-01-02T03:04:05Z&untilTime=2026-01-02T05:04:05%2B01:00", 200,
			"--utc\n--no-pager\n--output=short-precise\n--since=2026-01-02 03:04:05\n--until=2026-01-02 04:04:05\n--lines=3\n--unit=ssh.service\n--grep=a b\n--case-sensitive=false\n--boot\n-1\n"},
		{"/?query=web", 200, "one\nTWO\ntwo b\nthree\n"},
		{"/?query=web.log&pattern=two&tailLines=1", 200, "two b\n"},
		{"/?query=web&pattern=two", 200, "TWO\ntwo b\n"},
		{"/?query=db&query=web&tailLines=1", 200, "dbthree\n"},
		{"/?query=none", 200, "error: log not found for none\n"},
		{"/?query=escape", 200, "error: log not found for escape\n"},
		{"/?query=web&boot=0", 200, "error: the log of web is a file"},
		{"/syslog?query=ssh", 406, "path not allowed in query mode"},
		{"/?query=%20", 400, "query cannot be empty"},
		{"/?query=ssh&sinceTime=now", 400, "invalid time format"},
		{"/?query=ssh&tailLines=x", 400, "invalid syntax"},
		{"/?tailLines=1", 406, "cannot be empty with options"},
		{"/?query=ssh&query=/syslog", 406, "cannot specify a file and service"},
		{"/?query=/web.log&query=/syslog", 406, "cannot specify more than one file"},
		{"/?query=/syslog&tailLines=1", 406, "cannot specify file with options"},
		{"/?query=a%3Bb", 406, "input contains unsupported characters"},
		{"/?query=--x", 200, "error: log not found for --x"},
		{"/?query=ssh&boot=1", 406, "must be less than 1"},
		{"/?query=ssh&tailLines=100001", 406, "must be between 0 and 100000"},
		{"/?query=ssh&pattern=(", 406, "missing closing"},
		{"/?query=ssh&sinceTime=2026-01-02T03:04:05Z&untilTime=2025-01-02T03:04:05Z", 406, "must be after `sinceTime`"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, c.path, nil))
		if w.Code != c.code || !strings.HasPrefix(w.Body.String(), c.want) && (c.code == 200 || !strings.Contains(w.Body.String(), c.want)) {
			t.Errorf("%s: %d %q, want %d %q", c.path, w.Code, w.Body, c.code, c.want)
		}
	}
	w := httptest.NewRecorder()
	(&Handler{Dir: dir, Journal: journal}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?query=ssh", nil))
	if strings.Contains(w.Body.String(), "--unit") {
		t.Errorf("a query is answered that is not to be: %q", w.Body)
	}
}
