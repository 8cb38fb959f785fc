package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Inet is the family of tables for IPv4 and IPv6 together.
const Inet Family = unix.NFPROTO_INET

// dropPolicy is the verdict NF_DROP of linux/netfilter.h.
const dropPolicy = 0

// Base is a base chain: one that a hook of the kernel calls.
type Base struct {
	Table, Chain string
	// Hook is its number, as unix.NF_INET_FORWARD.
	Hook uint32
	// Drops reports whether the chain's policy is drop.
	Drops bool
}

// Bases returns the base chains of a family's tables of filters.
func Bases(f Family) (out []Base, err error) {
	err = dump(f, unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP, func(*encoder) {}, func(b []byte) {
		x := Base{Hook: ^uint32(0)}
		filter := false
		attributes(b, func(typ uint16, v []byte) {
			switch typ &^ unix.NLA_F_NESTED {
			case unix.NFTA_CHAIN_TABLE:
				x.Table = text(v)
			case unix.NFTA_CHAIN_NAME:
				x.Chain = text(v)
			case unix.NFTA_CHAIN_TYPE:
				filter = text(v) == "filter"
			case unix.NFTA_CHAIN_POLICY:
				x.Drops = len(v) == 4 && binary.BigEndian.Uint32(v) == dropPolicy
			case unix.NFTA_CHAIN_HOOK:
				attributes(v, func(typ uint16, v []byte) {
					if typ == unix.NFTA_HOOK_HOOKNUM && len(v) == 4 {
						x.Hook = binary.BigEndian.Uint32(v)
					}
				})
			}
		})
		if filter && x.Hook != ^uint32(0) {
			out = append(out, x)
		}
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("nftables: reading the chains: %w", err)
	}
	return out, nil
}

// Rule identifies a rule in a transaction.
type Rule struct {
	Handle  uint64
	Comment string
}

// Commented returns the rules of a chain, in order, with their comments.
func Commented(f Family, table, chain string) (out []Rule, err error) {
	err = dump(f, unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, func(e *encoder) {
		e.string(unix.NFTA_RULE_TABLE, table)
		e.string(unix.NFTA_RULE_CHAIN, chain)
	}, func(b []byte) {
		var r Rule
		attributes(b, func(typ uint16, v []byte) {
			switch {
			case typ == unix.NFTA_RULE_HANDLE && len(v) == 8:
				r.Handle = binary.BigEndian.Uint64(v)
			case typ == unix.NFTA_RULE_USERDATA:
				r.Comment = comment(v)
			}
		})
		out = append(out, r)
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("nftables: reading the rules of table %s: %w", table, err)
	}
	return out, nil
}

// comment returns the comment in the user data that the nft program stores with a
// rule: fields of a type (0 for a comment), a length and a value.
func comment(b []byte) string {
	for len(b) >= 2 {
		n := int(b[1])
		if len(b) < 2+n {
			return ""
		}
		if b[0] == 0 {
			return text(b[2 : 2+n])
		}
		b = b[2+n:]
	}
	return ""
}

// text returns a string that ends in a zero byte.
func text(b []byte) string {
	if n := len(b); n > 0 && b[n-1] == 0 {
		b = b[:n-1]
	}
	return string(b)
}
