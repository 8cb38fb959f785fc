package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// encoder appends netlink attributes to a buffer.
type encoder struct{ b []byte }

func (e *encoder) pad() {
	for len(e.b)%unix.NLA_ALIGNTO != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) header(typ uint16, n int) {
	e.b = binary.NativeEndian.AppendUint16(e.b, uint16(unix.SizeofNlAttr+n))
	e.b = binary.NativeEndian.AppendUint16(e.b, typ)
}

func (e *encoder) bytes(typ uint16, v []byte) {
	e.header(typ, len(v))
	e.b = append(e.b, v...)
	e.pad()
}

func (e *encoder) string(typ uint16, v string) {
	e.header(typ, len(v)+1)
	e.b = append(append(e.b, v...), 0)
	e.pad()
}

func (e *encoder) uint32(typ uint16, v uint32) {
	e.header(typ, 4)
	e.b = binary.BigEndian.AppendUint32(e.b, v)
}

func (e *encoder) uint64(typ uint16, v uint64) {
	e.header(typ, 8)
	e.b = binary.BigEndian.AppendUint64(e.b, v)
}

// nest appends an attribute that holds what f appends.
func (e *encoder) nest(typ uint16, f func()) {
	at := len(e.b)
	e.header(typ|unix.NLA_F_NESTED, 0)
	f()
	binary.NativeEndian.PutUint16(e.b[at:], uint16(len(e.b)-at))
}

// data appends a value in the nesting that nf_tables expects.
func (e *encoder) data(typ uint16, v []byte) {
	e.nest(typ, func() { e.bytes(unix.NFTA_DATA_VALUE, v) })
}

// attributes calls f with each attribute of b, until b ends or is damaged.
func attributes(b []byte, f func(typ uint16, v []byte)) {
	for len(b) >= unix.SizeofNlAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:n])
		b = b[min((n+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b)):]
	}
}
