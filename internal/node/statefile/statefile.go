// Package statefile reads and writes the files of JSON in which a node keeps state that
// a later process needs. It may import nothing of this module.
package statefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/renameio/v2"
)

// Read returns the value in the file at path, nil if there is no file. A file that
// cannot be decoded is damaged, since Write writes it whole.
func Read[T any](path string) (*T, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v := new(T)
	if err := json.Unmarshal(text, v); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return v, nil
}

// Write writes v to the file at path, whole and durably or not at all. Only the file's
// owner may read it.
func Write(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return renameio.WriteFile(path, text, 0o600)
}
