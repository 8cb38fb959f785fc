package inprocess

import (
	"io"
	"net/http"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
)

// TestAnswer checks that a client reads all of an answer, the parts that are kept and those
// whose memory their writer uses again.
func TestAnswer(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		buf := []byte("one ")
		_, _ = w.Write(buf)
		w.(interface{ Keep(parts [][]byte) }).Keep([][]byte{[]byte("two "), []byte("three ")})
		copy(buf, "four")
		_, _ = w.Write(buf)
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, Host+"/api", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := Config(h, &user.DefaultInfo{Name: "u"}).Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	const want = "one two three four"
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != want || resp.ContentLength != int64(len(want)) || resp.StatusCode != http.StatusOK {
		t.Errorf("%q, %v, length %d, code %d", body, err, resp.ContentLength, resp.StatusCode)
	}
}
