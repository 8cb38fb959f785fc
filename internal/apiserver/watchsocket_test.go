package apiserver_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// TestWatchOverSocket checks that each event is one message, text for JSON and binary
// without a length for protobuf, and that the stream ends at its timeout.
func TestWatchOverSocket(t *testing.T) {
	a := start(t)
	dial := func(query, accept string) (*websocket.Conn, error) {
		t.Helper()
		cfg, err := websocket.NewConfig("wss"+strings.TrimPrefix(a.cfg.Host, "https")+configMaps+"?watch=true&"+query, a.cfg.Host)
		if err != nil {
			t.Fatal(err)
		}
		if cfg.TlsConfig, err = rest.TLSConfigFor(a.cfg); err != nil {
			t.Fatal(err)
		}
		cfg.Header.Set("Accept", accept)
		ws, err := websocket.DialConfig(cfg)
		if err == nil {
			t.Cleanup(func() { ws.Close() })
			_ = ws.SetDeadline(time.Now().Add(30 * time.Second))
		}
		return ws, err
	}
	message := websocket.Codec{Unmarshal: func(data []byte, kind byte, v any) error {
		m := v.(*[]byte)
		*m = append([]byte{kind}, data...)
		return nil
	}}
	receive := func(ws *websocket.Conn) (byte, []byte) {
		t.Helper()
		var m []byte
		if err := message.Receive(ws, &m); err != nil {
			t.Fatal(err)
		}
		return m[0], m[1:]
	}
	ws, err := dial("labelSelector=a%3Db", "application/json")
	if err != nil {
		t.Fatal(err)
	}
	proto, err := dial("labelSelector=a%3Db&timeoutSeconds=1", "application/vnd.kubernetes.protobuf;stream=watch")
	if err != nil {
		t.Fatal(err)
	}
	a.do("POST", configMaps, `{"metadata":{"name":"one","labels":{"a":"b"}}}`)
	a.do("POST", configMaps, `{"metadata":{"name":"two","labels":{"a":"b"}}}`)
	a.do("DELETE", configMaps+"/one", "")
	for _, want := range []string{"ADDED one", "ADDED two", "DELETED one"} {
		kind, data := receive(ws)
		var ev struct {
			Type   string
			Object v1.ConfigMap
		}
		if err := json.Unmarshal(data, &ev); err != nil || kind != websocket.TextFrame || ev.Type+" "+ev.Object.Name != want {
			t.Errorf("a message of kind %d: %s (%v), want %s", kind, data, err, want)
		}
		kind, data = receive(proto)
		var pev metav1.WatchEvent
		if err := pev.Unmarshal(data); err != nil || kind != websocket.BinaryFrame {
			t.Fatalf("a message of kind %d: %q (%v)", kind, data, err)
		}
		obj, err := runtime.Decode(scheme.Codecs.UniversalDeserializer(), pev.Object.Raw)
		if cm, ok := obj.(*v1.ConfigMap); err != nil || !ok || pev.Type+" "+cm.Name != want {
			t.Errorf("%s %v (%v), want %s", pev.Type, obj, err, want)
		}
	}
	var m []byte
	if err := message.Receive(proto, &m); err == nil {
		t.Errorf("after its time: %q", m)
	}
	// An invalid watch is refused in the handshake.
	if _, err := dial("resourceVersion=x", "application/json"); err == nil {
		t.Error("a watch from nowhere was served")
	}
}
