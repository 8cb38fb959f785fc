package nft

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// Expr is one expression of a rule. A rule's expressions are evaluated in order
// until one does not match.
type Expr func(*encoder)

// Reg returns the number of a 32-bit register, 0 to 15.
func Reg(n int) uint32 { return unix.NFT_REG32_00 + uint32(n) }

func expression(name string, attrs func(*encoder)) Expr {
	return func(e *encoder) {
		e.nest(unix.NFTA_LIST_ELEM, func() {
			e.string(unix.NFTA_EXPR_NAME, name)
			e.nest(unix.NFTA_EXPR_DATA, func() { attrs(e) })
		})
	}
}

func payload(base, offset, n, reg uint32) Expr {
	return expression("payload", func(e *encoder) {
		e.uint32(unix.NFTA_PAYLOAD_DREG, reg)
		e.uint32(unix.NFTA_PAYLOAD_BASE, base)
		e.uint32(unix.NFTA_PAYLOAD_OFFSET, offset)
		e.uint32(unix.NFTA_PAYLOAD_LEN, n)
	})
}

// Source loads the packet's source address, Destination its destination
// address, into one register (IPv4) or four (IPv6).
func (f Family) Source(reg uint32) Expr {
	if f == IPv4 {
		return payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 12, 4, reg)
	}
	return payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 8, 16, reg)
}

// Destination is described at Source.
func (f Family) Destination(reg uint32) Expr {
	if f == IPv4 {
		return payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 16, 4, reg)
	}
	return payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 16, reg)
}

// DestinationPort loads the packet's destination port.
func DestinationPort(reg uint32) Expr { return payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, reg) }

func meta(key, reg uint32) Expr {
	return expression("meta", func(e *encoder) {
		e.uint32(unix.NFTA_META_DREG, reg)
		e.uint32(unix.NFTA_META_KEY, key)
	})
}

// Protocol loads the number of the transport protocol, Mark the packet's mark.
func Protocol(reg uint32) Expr { return meta(unix.NFT_META_L4PROTO, reg) }

// Mark is described at Protocol.
func Mark(reg uint32) Expr { return meta(unix.NFT_META_MARK, reg) }

// ToMany matches packets that were sent to all or to many hosts of their link.
func ToMany() []Expr {
	return append([]Expr{meta(unix.NFT_META_PKTTYPE, Reg(0))}, Between(Reg(0), []byte{unix.PACKET_BROADCAST}, []byte{unix.PACKET_MULTICAST})...)
}

// ToLink matches packets that leave by the link of this name, or that a bridge of this
// name carries from one of its ports to another.
func ToLink(name string) []Expr {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []Expr{meta(unix.NFT_META_OIFNAME, Reg(0)), Equal(Reg(0), padded)}
}

// SetMark sets the packet's mark to the value of the register.
func SetMark(reg uint32) Expr {
	return expression("meta", func(e *encoder) {
		e.uint32(unix.NFTA_META_KEY, unix.NFT_META_MARK)
		e.uint32(unix.NFTA_META_SREG, reg)
	})
}

func ct(key, reg uint32) Expr {
	return expression("ct", func(e *encoder) {
		e.uint32(unix.NFTA_CT_KEY, key)
		e.uint32(unix.NFTA_CT_DREG, reg)
	})
}

// Bits of a connection's state and status, as in the kernel.
const (
	stateEstablished = 1 << 1
	stateRelated     = 1 << 2
	stateNew         = 1 << 3
	statusDestNAT    = 1 << 5
	directionReply   = 1
)

// Beginning matches packets that begin a connection.
func Beginning() []Expr { return []Expr{ct(unix.NFT_CT_STATE, Reg(0)), Bits(Reg(0), stateNew)} }

// Translated matches packets of connections whose destination was translated.
func Translated() []Expr { return []Expr{ct(unix.NFT_CT_STATUS, Reg(0)), Bits(Reg(0), statusDestNAT)} }

// Related matches packets that are related to a connection, such as ICMP errors.
func Related() []Expr { return []Expr{ct(unix.NFT_CT_STATE, Reg(0)), Bits(Reg(0), stateRelated)} }

// Answers matches packets in the reply direction of a connection.
func Answers() []Expr {
	return []Expr{ct(unix.NFT_CT_STATE, Reg(0)), Bits(Reg(0), stateEstablished|stateRelated),
		ct(unix.NFT_CT_DIRECTION, Reg(0)), compare(unix.NFT_CMP_EQ, Reg(0), []byte{directionReply})}
}

// Bits matches if the register has any of these bits.
func Bits(reg, bits uint32) Expr {
	return func(e *encoder) {
		Bitwise(reg, native(bits), native(0))(e)
		compare(unix.NFT_CMP_NEQ, reg, native(0))(e)
	}
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// Bitwise sets the register to (register AND mask) XOR xor.
func Bitwise(reg uint32, mask, xor []byte) Expr {
	return expression("bitwise", func(e *encoder) {
		e.uint32(unix.NFTA_BITWISE_SREG, reg)
		e.uint32(unix.NFTA_BITWISE_DREG, reg)
		e.uint32(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
		e.data(unix.NFTA_BITWISE_MASK, mask)
		e.data(unix.NFTA_BITWISE_XOR, xor)
	})
}

// AddMark sets these bits of the packet's mark, and clears those of clear.
func AddMark(set, clear uint32) []Expr {
	return []Expr{Mark(Reg(0)), Bitwise(Reg(0), native(^(set | clear)), native(set)), SetMark(Reg(0))}
}

func compare(op, reg uint32, v []byte) Expr {
	return expression("cmp", func(e *encoder) {
		e.uint32(unix.NFTA_CMP_SREG, reg)
		e.uint32(unix.NFTA_CMP_OP, op)
		e.data(unix.NFTA_CMP_DATA, v)
	})
}

// Equal matches if the register has this value, in network byte order.
func Equal(reg uint32, v []byte) Expr { return compare(unix.NFT_CMP_EQ, reg, v) }

// Between matches if the value of the register is from first to last, in network
// byte order.
func Between(reg uint32, first, last []byte) []Expr {
	return []Expr{compare(unix.NFT_CMP_GTE, reg, first), compare(unix.NFT_CMP_LTE, reg, last)}
}

// ICMPType loads the type of an ICMP or ICMPv6 packet.
func ICMPType(reg uint32) Expr { return payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, reg) }

// FromLocal matches packets whose source is an address of this machine.
func FromLocal() []Expr {
	return []Expr{
		expression("fib", func(e *encoder) {
			e.uint32(unix.NFTA_FIB_DREG, Reg(0))
			e.uint32(unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_SADDR)
			e.uint32(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE)
		}),
		compare(unix.NFT_CMP_EQ, Reg(0), native(unix.RTN_LOCAL)),
	}
}

// Within matches if the address at reg AND mask equals value; with outside, if
// it does not.
func Within(reg uint32, mask, value []byte, outside bool) []Expr {
	op := uint32(unix.NFT_CMP_EQ)
	if outside {
		op = unix.NFT_CMP_NEQ
	}
	return []Expr{Bitwise(reg, mask, make([]byte, len(mask))), compare(op, reg, value)}
}

// In matches if the value of the registers from reg is in the set.
func In(set string, reg uint32) Expr {
	return expression("lookup", func(e *encoder) {
		e.uint32(unix.NFTA_LOOKUP_SREG, reg)
		e.string(unix.NFTA_LOOKUP_SET, set)
	})
}

// Get loads the map's value at the key in reg into dest, and ends the rule if
// the map does not have the key.
func Get(set string, reg, dest uint32) Expr {
	return expression("lookup", func(e *encoder) {
		e.uint32(unix.NFTA_LOOKUP_SREG, reg)
		e.uint32(unix.NFTA_LOOKUP_DREG, dest)
		e.string(unix.NFTA_LOOKUP_SET, set)
	})
}

// Follow takes the verdict from the map, at the key in reg.
func Follow(set string, reg uint32) Expr { return Get(set, reg, unix.NFT_REG_VERDICT) }

// Remember sets the dynamic map's element at key to the value at data, with that
// timeout. It ends the rule if the map is full.
func Remember(set string, key, data uint32, timeout time.Duration) Expr {
	return expression("dynset", func(e *encoder) {
		e.string(unix.NFTA_DYNSET_SET_NAME, set)
		e.uint32(unix.NFTA_DYNSET_OP, unix.NFT_DYNSET_OP_UPDATE)
		e.uint32(unix.NFTA_DYNSET_SREG_KEY, key)
		e.uint32(unix.NFTA_DYNSET_SREG_DATA, data)
		e.uint64(unix.NFTA_DYNSET_TIMEOUT, uint64(timeout.Milliseconds()))
	})
}

// Random loads a number from first to first+n-1.
func Random(reg, first, n uint32) Expr {
	return expression("numgen", func(e *encoder) {
		e.uint32(unix.NFTA_NG_DREG, reg)
		e.uint32(unix.NFTA_NG_MODULUS, n)
		e.uint32(unix.NFTA_NG_TYPE, unix.NFT_NG_RANDOM)
		e.uint32(unix.NFTA_NG_OFFSET, first)
	})
}

// To translates the packet's destination to the address and port in these
// registers.
func (f Family) To(addr, port uint32) Expr {
	return expression("nat", func(e *encoder) {
		e.uint32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		e.uint32(unix.NFTA_NAT_FAMILY, uint32(f))
		e.uint32(unix.NFTA_NAT_REG_ADDR_MIN, addr)
		e.uint32(unix.NFTA_NAT_REG_PROTO_MIN, port)
	})
}

// Masquerade translates the source to an address of the machine and a random
// port.
func Masquerade() Expr {
	return expression("masq", func(e *encoder) {
		e.uint32(unix.NFTA_MASQ_FLAGS, unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY)
	})
}

// Reject answers with ICMP port unreachable.
func (f Family) Reject() Expr {
	code := byte(3) // ICMP_PORT_UNREACH
	if f == IPv6 {
		code = 4 // ICMPV6_PORT_UNREACH
	}
	return expression("reject", func(e *encoder) {
		e.uint32(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_ICMP_UNREACH)
		e.bytes(unix.NFTA_REJECT_ICMP_CODE, []byte{code})
	})
}

// Codes of verdicts.
const (
	Drop   = 0
	Accept = 1
	Return = unix.NFT_RETURN
	Jump   = unix.NFT_JUMP
	Goto   = unix.NFT_GOTO
)

// Do ends the rule with a verdict.
func Do(code int32, chain string) Expr {
	return expression("immediate", func(e *encoder) {
		e.uint32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		e.nest(unix.NFTA_IMMEDIATE_DATA, func() { e.verdict(Verdict{code, chain}) })
	})
}

func (e *encoder) verdict(v Verdict) {
	e.nest(unix.NFTA_DATA_VERDICT, func() {
		e.uint32(unix.NFTA_VERDICT_CODE, uint32(v.Code))
		if v.Chain != "" {
			e.string(unix.NFTA_VERDICT_CHAIN, v.Chain)
		}
	})
}
