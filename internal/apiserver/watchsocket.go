package apiserver

import (
	"context"
	"net/http"

	"golang.org/x/net/websocket"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// overSocket serves the watch over a WebSocket, by begin: each event is a message, of
// type text if the events are JSON. Messages of the client are ignored, until it
// closes.
func (st *stream) overSocket(begin func()) {
	r := st.call
	r.code = http.StatusForbidden // unless the handshake succeeds; the library has written the answer
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
