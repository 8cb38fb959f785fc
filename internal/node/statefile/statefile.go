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
	"k8s.io/klog/v2"
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
		return nil, &DecodingError{path, err}
	}
	return v, nil
}

// Damaged is the end of the names of files that Recover has set aside.
const Damaged = ".damaged"

// Recover does what Read does, for state that can be begun anew: a damaged file, as a loss
// of power may leave one on some file systems, is set aside, logged and counts as none. It
// reports whether there was one.
func Recover[T any](path string) (v *T, damaged bool, err error) {
	v, err = Read[T](path)
	var decoding *DecodingError
	if !errors.As(err, &decoding) {
		return v, false, err
	}
	if failed := os.Rename(path, path+Damaged); failed != nil {
		return nil, true, errors.Join(err, failed)
	}
	klog.Background().Error(err, "A file of the node's state is set aside, and begun anew", "as", path+Damaged)
	return nil, true, nil
}

// DecodingError is the error of a file that is damaged.
type DecodingError struct {
	// Path is the file's.
	Path string
	// Err is what is wrong with its content.
	Err error
}

// Error implements error.
func (e *DecodingError) Error() string { return fmt.Sprintf("%s is damaged: %v", e.Path, e.Err) }

// Unwrap returns what is wrong.
func (e *DecodingError) Unwrap() error { return e.Err }

// Write writes v to the file at path, whole and durably or not at all. Only the file's
// owner may read it.
func Write(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return renameio.WriteFile(path, text, 0o600)
}
