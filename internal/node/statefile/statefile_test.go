package statefile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRead checks what Read returns for a missing, a whole and a damaged file.
func TestRead(t *testing.T) {
	type state struct{ N int }
	path := filepath.Join(t.TempDir(), "state.json")
	if got, err := Read[state](path); got != nil || err != nil {
		t.Errorf("a missing file: %v, %v", got, err)
	}
	if err := Write(path, state{3}); err != nil {
		t.Fatal(err)
	}
	if got, err := Read[state](path); err != nil || *got != (state{3}) {
		t.Errorf("a file: %v, %v", got, err)
	}
	if err := os.Truncate(path, 2); err != nil {
		t.Fatal(err)
	}
	if got, err := Read[state](path); got != nil || err == nil || !strings.Contains(err.Error(), path+" is damaged") {
		t.Errorf("a damaged file: %v, %v", got, err)
	}
}

// TestRecover checks that a damaged file is set aside, and others are read.
func TestRecover(t *testing.T) {
	type state struct{ N int }
	path := filepath.Join(t.TempDir(), "state.json")
	if got, damaged, err := Recover[state](path); got != nil || damaged || err != nil {
		t.Errorf("a missing file: %v, %t, %v", got, damaged, err)
	}
	for _, text := range []string{"", "{\"N\":", "\x00\x00\x00\x00", "[]"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, damaged, err := Recover[state](path); got != nil || !damaged || err != nil {
			t.Errorf("%q: %v, %t, %v", text, got, damaged, err)
		}
		if kept, err := os.ReadFile(path + Damaged); err != nil || string(kept) != text {
			t.Errorf("%q was set aside as %q (%v)", text, kept, err)
		}
		if got, damaged, err := Recover[state](path); got != nil || damaged || err != nil {
			t.Errorf("after that: %v, %t, %v", got, damaged, err)
		}
	}
	if err := Write(path, state{3}); err != nil {
		t.Fatal(err)
	}
	if got, damaged, err := Recover[state](path); err != nil || damaged || *got != (state{3}) {
		t.Errorf("a file: %v, %t, %v", got, damaged, err)
	}
}
