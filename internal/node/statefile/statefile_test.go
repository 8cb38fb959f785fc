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
