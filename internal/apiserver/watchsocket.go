package apiserver

import (
	"context"
	"net/http"

	"golang.org/x/net/websocket"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// overSocket has begin serve the watch over a WebSocket: each event is a message,
// a text where the events are JSON. What the client sends is ignored, until it closes.
func (st *stream) overSocket(begin func()) {
	r := st.call
	r.code = http.StatusForbidden // unless the handshake succeeds, whose answer is the library's
	websocket.Handler(func(ws *websocket.Conn) {
		defer ws.Close()
		r.code = http.StatusSwitchingProtocols
		ctx, cancel := context.WithCancel(r.ctx())
		defer cancel()
		go func() {
			defer cancel()
			wsstream.IgnoreReceives(ws, 0)
		}()
		r.req = r.req.WithContext(ctx)
		ws.PayloadType = websocket.BinaryFrame
		if st.form.mediaType == typeJSON {
			ws.PayloadType = websocket.TextFrame
		}
		st.socket = ws
		begin()
	}).ServeHTTP(r.w, r.req)
}
