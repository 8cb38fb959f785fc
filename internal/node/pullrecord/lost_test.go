package pullrecord

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLost checks that images are verified whose records a loss of power has torn, also by the
// agents after that, and that those that are pulled again are anybody's who may pull them.
func TestLost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image_pulls.json")
	r, err := New("", nil, file)
	if err != nil {
		t.Fatal(err)
	}
	if r.Verifies("img", "id", "repo") {
		t.Error("an image that was there before the node is verified")
	}
	for _, torn := range []string{"", "\x00\x00\x00", `{"Images":`} {
		if err := os.WriteFile(file, []byte(torn), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if r, err = New("", nil, file); err != nil {
				t.Fatalf("%q: %v", torn, err)
			}
			if !r.Verifies("img", "id", "repo") {
				t.Errorf("%q: an image that any credentials may have pulled is not verified", torn)
			}
		}
		if err := r.Pulled("img", "id", "repo", nil); err != nil {
			t.Fatal(err)
		}
		if r.Verifies("img", "id", "repo") {
			t.Errorf("%q: an image that was pulled without credentials is verified", torn)
		}
	}
}
