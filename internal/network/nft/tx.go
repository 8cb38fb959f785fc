package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Family is the family of a table.
type Family uint8

// Families.
const (
	IPv4 Family = unix.NFPROTO_IPV4
	IPv6 Family = unix.NFPROTO_IPV6
)

// Type is the type of a field of a set's keys, the number by which nft lists it.
type Type uint32

// The types of fields.
const (
	Addr4    Type = 7
	Addr6    Type = 8
	Proto    Type = 12
	Port     Type = 13
	MarkType Type = 19
)

func (t Type) bytes() uint32 {
	if t == Addr6 {
		return 16
	}
	return 4 // the others are padded to a register
}

// Address returns the type of the family's addresses.
func (f Family) Address() Type {
	if f == IPv4 {
		return Addr4
	}
	return Addr6
}

// Set describes a set or a map. Keys and values have one or more fields.
type Set struct {
	Name     string
	Key      []Type
	Value    []Type // none: a set, or a map of verdicts
	Verdicts bool
	// Dynamic elements are added by rules, and end after a time.
	Dynamic bool
	// Intervals makes the elements ranges: each begins at an element, and ends
	// before the next one with End, or with the greatest key where there is none.
	Intervals bool
	// Size bounds the number of elements; 0 means no bound.
	Size uint32
}

// Element is an element of a set or map. The fields of key and value are
// registers: each is padded to 4 bytes.
type Element struct {
	Key     []byte
	Value   []byte
	Verdict *Verdict      // of a map of verdicts
	End     bool          // of a set of intervals
	Timeout time.Duration // of a dynamic map
	Expires time.Duration // the remaining time
}

// Verdict is the decision about a packet; a jump or goto names a chain.
type Verdict struct {
	Code  int32
	Chain string
}

// Tx is a transaction on one table.
type Tx struct {
	family Family
	table  string
	e      encoder
	what   []step
	open   int // offset of the message that is being written, -1 if none
	sets   uint32
}

// step describes a message of the transaction, for errors.
type step struct{ what, name string }

// Begin begins a transaction on a table.
func Begin(f Family, table string) *Tx {
	t := &Tx{family: f, table: table, open: -1}
	t.batch(unix.NFNL_MSG_BATCH_BEGIN)
	return t
}

// Empty reports whether the transaction has no messages.
func (t *Tx) Empty() bool { return len(t.what) == 0 }

const (
	create  = unix.NLM_F_CREATE
	nothing = 0
)

func (t *Tx) batch(typ uint16) {
	at := t.begin(typ, nothing, 0, 0)
	binary.BigEndian.PutUint16(t.e.b[at+unix.SizeofNlMsghdr+2:], unix.NFNL_SUBSYS_NFTABLES)
	t.end(at)
}

func (t *Tx) begin(typ, flags uint16, family Family, seq uint32) int {
	at := len(t.e.b)
	b := binary.NativeEndian.AppendUint32(t.e.b, 0)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	t.e.b = append(b, byte(family), unix.NFNETLINK_V0, 0, 0)
	return at
}

func (t *Tx) end(at int) {
	binary.NativeEndian.PutUint32(t.e.b[at:], uint32(len(t.e.b)-at))
}

// message appends a message; its sequence number is its place, from 1.
func (t *Tx) message(typ, flags uint16, what, name string, attrs func(e *encoder)) {
	t.what = append(t.what, step{what, name})
	t.open = t.begin(unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags, t.family, uint32(len(t.what)))
	attrs(&t.e)
	t.end(t.open)
}

// AddTable adds the table if it does not exist.
func (t *Tx) AddTable() {
	t.message(unix.NFT_MSG_NEWTABLE, create, "add table", t.table, func(e *encoder) { e.string(unix.NFTA_TABLE_NAME, t.table) })
}

// DeleteTable deletes the table with its contents.
func (t *Tx) DeleteTable() {
	t.message(unix.NFT_MSG_DELTABLE, nothing, "delete table", t.table, func(e *encoder) { e.string(unix.NFTA_TABLE_NAME, t.table) })
}

// Hook is the hook at which a base chain is called.
type Hook struct {
	Type     string // filter or nat
	Number   uint32 // unix.NF_INET_...
	Priority int32
}

// AddChain adds a chain, at a hook if hook is not nil.
func (t *Tx) AddChain(name string, hook *Hook) {
	t.message(unix.NFT_MSG_NEWCHAIN, create, "add chain", name, func(e *encoder) {
		e.string(unix.NFTA_CHAIN_TABLE, t.table)
		e.string(unix.NFTA_CHAIN_NAME, name)
		if hook != nil {
			e.nest(unix.NFTA_CHAIN_HOOK, func() {
				e.uint32(unix.NFTA_HOOK_HOOKNUM, hook.Number)
				e.uint32(unix.NFTA_HOOK_PRIORITY, uint32(hook.Priority))
			})
			e.string(unix.NFTA_CHAIN_TYPE, hook.Type)
		}
	})
}

// DeleteChain deletes a chain, which must have no rules and no references.
func (t *Tx) DeleteChain(name string) {
	t.message(unix.NFT_MSG_DELCHAIN, nothing, "delete chain", name, func(e *encoder) {
		e.string(unix.NFTA_CHAIN_TABLE, t.table)
		e.string(unix.NFTA_CHAIN_NAME, name)
	})
}

// FlushChain deletes the chain's rules.
func (t *Tx) FlushChain(name string) {
	t.message(unix.NFT_MSG_DELRULE, nothing, "flush chain", name, func(e *encoder) {
		e.string(unix.NFTA_RULE_TABLE, t.table)
		e.string(unix.NFTA_RULE_CHAIN, name)
	})
}

// AddRule appends a rule to the chain.
func (t *Tx) AddRule(chain string, exprs ...Expr) {
	t.message(unix.NFT_MSG_NEWRULE, create|unix.NLM_F_APPEND, "add a rule to chain", chain, func(e *encoder) {
		e.string(unix.NFTA_RULE_TABLE, t.table)
		e.string(unix.NFTA_RULE_CHAIN, chain)
		e.nest(unix.NFTA_RULE_EXPRESSIONS, func() {
			for _, x := range exprs {
				x(e)
			}
		})
	})
}

// fields returns the width of a concatenation in bytes, and the number by which
// nft lists it.
func fields(types []Type) (width, magic uint32) {
	for _, t := range types {
		width += t.bytes()
		magic = magic<<6 | uint32(t)
	}
	return width, magic
}

// AddSet adds a set or a map.
func (t *Tx) AddSet(s Set) {
	t.sets++
	id := t.sets
	t.message(unix.NFT_MSG_NEWSET, create, "add set", s.Name, func(e *encoder) {
		flags := uint32(0)
		if s.Verdicts || len(s.Value) > 0 {
			flags |= unix.NFT_SET_MAP
		}
		if s.Dynamic {
			flags |= unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL
		}
		if s.Intervals {
			flags |= unix.NFT_SET_INTERVAL
		}
		width, magic := fields(s.Key)
		e.string(unix.NFTA_SET_TABLE, t.table)
		e.string(unix.NFTA_SET_NAME, s.Name)
		e.uint32(unix.NFTA_SET_FLAGS, flags)
		e.uint32(unix.NFTA_SET_KEY_TYPE, magic)
		e.uint32(unix.NFTA_SET_KEY_LEN, width)
		e.uint32(unix.NFTA_SET_ID, id)
		switch {
		case s.Verdicts:
			e.uint32(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
			e.uint32(unix.NFTA_SET_DATA_LEN, 0)
		case len(s.Value) > 0:
			width, magic := fields(s.Value)
			e.uint32(unix.NFTA_SET_DATA_TYPE, magic)
			e.uint32(unix.NFTA_SET_DATA_LEN, width)
		}
		if s.Size > 0 {
			e.nest(unix.NFTA_SET_DESC, func() { e.uint32(unix.NFTA_SET_DESC_SIZE, s.Size) })
		}
		// The mark is in host byte order, which nft needs to know to list it.
		if len(s.Key) == 1 && s.Key[0] == MarkType {
			e.bytes(unix.NFTA_SET_USERDATA, append([]byte{0, 4}, native(1)...))
		}
	})
}

// DeleteSet deletes a set that no rule uses.
func (t *Tx) DeleteSet(name string) {
	t.message(unix.NFT_MSG_DELSET, nothing, "delete set", name, func(e *encoder) {
		e.string(unix.NFTA_SET_TABLE, t.table)
		e.string(unix.NFTA_SET_NAME, name)
	})
}

// listMax is the size at which a list of elements is continued in another
// message; the length of an attribute has 16 bits.
const listMax = 48 << 10

// AddElement adds an element to a set or map, DeleteElement deletes one.
// Consecutive elements of the same set share a message.
func (t *Tx) AddElement(set string, x Element) {
	t.element(unix.NFT_MSG_NEWSETELEM, create, "add an element to set", set, x)
}

// DeleteElement is described at AddElement.
func (t *Tx) DeleteElement(set string, x Element) {
	t.element(unix.NFT_MSG_DELSETELEM, nothing, "delete an element of set", set, x)
}

func (t *Tx) element(typ, flags uint16, what, set string, x Element) {
	last := step{what, set}
	list := -1
	if n := len(t.what); n > 0 && t.what[n-1] == last && len(t.e.b)-t.open < listMax {
		// The list is the last attribute of the message.
		list = t.open + unix.SizeofNlMsghdr + 4 + align(unix.SizeofNlAttr+len(t.table)+1) + align(unix.SizeofNlAttr+len(set)+1)
	} else {
		t.message(typ, flags, what, set, func(e *encoder) {
			e.string(unix.NFTA_SET_ELEM_LIST_TABLE, t.table)
			e.string(unix.NFTA_SET_ELEM_LIST_SET, set)
			list = len(e.b)
			e.header(unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, 0)
		})
	}
	e := &t.e
	e.nest(unix.NFTA_LIST_ELEM, func() {
		e.data(unix.NFTA_SET_ELEM_KEY, x.Key)
		if x.End {
			e.uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
		}
		switch {
		case x.Verdict != nil:
			e.nest(unix.NFTA_SET_ELEM_DATA, func() { e.verdict(*x.Verdict) })
		case x.Value != nil:
			e.data(unix.NFTA_SET_ELEM_DATA, x.Value)
		}
		if x.Timeout > 0 {
			e.uint64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(x.Timeout.Milliseconds()))
			e.uint64(unix.NFTA_SET_ELEM_EXPIRATION, uint64(x.Expires.Milliseconds()))
		}
	})
	binary.NativeEndian.PutUint16(e.b[list:], uint16(len(e.b)-list))
	t.end(t.open)
}

func align(n int) int { return (n + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1) }

// hint returns advice for the error of a step that the kernel does not support.
func hint(s step, err unix.Errno) string {
	switch {
	case err == unix.EOPNOTSUPP && s.what == "add table":
		return ": this kernel has no nftables for this family of addresses: load nf_tables (modprobe nf_tables), or switch the family on"
	case (err == unix.ENOENT || err == unix.EOPNOTSUPP) && s.what == "add a rule to chain", err == unix.ENOENT && s.what == "add chain":
		return ": this kernel may have no module for it: load them (modprobe -a nft_ct nft_chain_nat nft_nat nft_masq nft_numgen nft_fib_ipv4 nft_fib_ipv6 nft_reject_ipv4 nft_reject_ipv6)"
	}
	return ""
}

// Commit sends the transaction to the kernel, which applies all of it or
// nothing.
func (t *Tx) Commit() error {
	if t.Empty() {
		return nil
	}
	// The acknowledgement of the last message stands for all.
	flags := binary.NativeEndian.Uint16(t.e.b[t.open+6:])
	binary.NativeEndian.PutUint16(t.e.b[t.open+6:], flags|unix.NLM_F_ACK)
	last := uint32(len(t.what))
	t.batch(unix.NFNL_MSG_BATCH_END)
	s, err := dial(len(t.e.b))
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.send(t.e.b); err != nil {
		return fmt.Errorf("nftables: sending %d bytes: %w", len(t.e.b), err)
	}
	var failed error
	for {
		done := false
		err := s.receive(func(typ uint16, seq uint32, b []byte) {
			if typ != unix.NLMSG_ERROR || len(b) < 4 {
				return
			}
			if code := int32(binary.NativeEndian.Uint32(b)); code != 0 && failed == nil {
				what := step{"begin", "transaction"}
				if 0 < seq && seq <= last {
					what = t.what[seq-1]
				}
				failed = fmt.Errorf("nftables: table %s: %s %s: %w%s", t.table, what.what, what.name, unix.Errno(-code), hint(what, unix.Errno(-code)))
			}
			done = done || seq == last || seq == 0
		})
		if err != nil {
			return errors.Join(failed, err)
		}
		if done {
			return failed
		}
	}
}
