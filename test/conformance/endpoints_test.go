package conformance

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestEndpoints checks that each stable endpoint of the list is described by
// the server's OpenAPI document under its path and with its operation, and its
// path is served.
func TestEndpoints(t *testing.T) {
	c := given(t).test(t, "default")
	b, _, code := c.raw("/openapi/v2", "application/json")
	if code != http.StatusOK {
		t.Fatalf("/openapi/v2: %d", code)
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	c.must(json.Unmarshal(b, &doc))
	operations := map[string]string{}
	for path, methods := range doc.Paths {
		for _, raw := range methods {
			var op struct {
				ID string `json:"operationId"`
			}
			if json.Unmarshal(raw, &op) == nil && op.ID != "" {
				operations[op.ID] = path
			}
		}
	}
	f, err := os.Open("testdata/endpoints-v1.37.tsv")
	c.must(err)
	defer f.Close()
	var rows [][]string
	within := map[string]int{} // group path to its stable endpoints
	for s := bufio.NewScanner(f); s.Scan(); {
		if col := strings.Split(s.Text(), "\t"); len(col) >= 7 && col[0] == "stable" {
			rows = append(rows, col)
			if parts := strings.SplitN(col[5], "/", 4); len(parts) == 4 {
				within["/"+parts[1]+"/"+parts[2]+"/"]++
			}
		}
	}
	stable, missing := 0, 0
	for _, col := range rows {
		path, id := col[5], col[6]
		if strings.HasPrefix(path, "/apis/") && within[path] == 1 {
			continue // a group with versions that are off by default
		}
		stable++
		if operations[id] != path {
			missing++
			t.Errorf("%s %s is at %q", path, id, operations[id])
			continue
		}
		if strings.Contains(path, "{") {
			continue
		}
		// Lists need no name and are requested.
		if _, _, code := c.raw(path, "application/json"); col[4] == "list" && code != http.StatusOK || code == http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
	t.Logf("%d of %d stable endpoints", stable-missing, stable)
}
