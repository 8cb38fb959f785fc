package controllers_test

import (
	"errors"
	"testing"

	"keelson.dev/keelson/internal/controllers"
)

func TestSlowStartStopsAtTheFirstFailedBatch(t *testing.T) {
	ch := make(chan error, 8)
	for _, e := range []error{nil, nil, nil, errors.New("no"), nil, nil, nil, nil} {
		ch <- e
	}
	done, err := controllers.SlowStart(20, func(int) error { return <-ch })
	if err == nil || done != 6 {
		t.Errorf("done %d, err %v; want 6 of the first 7 and an error", done, err)
	}
	if len(ch) != 1 {
		t.Errorf("%d calls left, want 1", len(ch))
	}
}
