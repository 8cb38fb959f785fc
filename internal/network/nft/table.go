package nft

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// Chain is a chain with its rules: one at a hook, or an ordinary one where Hook is nil.
type Chain struct {
	Name  string
	Hook  *Hook
	Rules [][]Expr
}

// Table is a table that this process owns. It remembers the generation of the kernel's
// tables at which the table was last known to be intact.
type Table struct {
	Family     Family
	Name       string
	generation uint32
}

// Begin begins a transaction that changes the table.
func (k *Table) Begin() *Tx { return Begin(k.Family, k.Name) }

// BeginNew begins a transaction that replaces the table by an empty one, or adds it.
func (k *Table) BeginNew() *Tx {
	t := k.Begin()
	t.AddTable()
	t.DeleteTable()
	t.AddTable()
	return t
}

// AddChains adds chains with their rules.
func (t *Tx) AddChains(chains []Chain) {
	for _, c := range chains {
		t.AddChain(c.Name, c.Hook)
		for _, r := range c.Rules {
			t.AddRule(c.Name, r...)
		}
	}
}

// Commit commits the transaction, and remembers its generation if no other
// transaction came between since the table was last intact. known reports whether
// the table is intact now in any case, as after BeginNew.
func (k *Table) Commit(t *Tx, known bool) error {
	before, err := Generation()
	if err != nil {
		return err
	}
	if err := t.Commit(); err != nil {
		return err
	}
	after, err := Generation()
	switch {
	case err != nil:
		return err
	case after == before+1 && (known || before == k.generation):
		k.generation = after
	case known:
		k.generation = before // so that Intact checks the table
	}
	return nil
}

// Intact reports whether the table is as it was written. If another process's
// transaction has changed the generation, it checks that these chains still have
// their rules.
func (k *Table) Intact(chains []Chain) (bool, error) {
	g, err := Generation()
	if err != nil || g == k.generation {
		return err == nil, err
	}
	for _, c := range chains {
		n, err := Rules(k.Family, k.Name, c.Name)
		if err != nil {
			return false, err
		}
		if n != len(c.Rules) {
			return false, nil
		}
	}
	k.generation = g
	return true, nil
}

// Remove deletes the table.
func (k *Table) Remove() error {
	t := k.Begin()
	t.AddTable()
	t.DeleteTable()
	err := t.Commit()
	if k.Family == IPv6 && errors.Is(err, unix.EAFNOSUPPORT) || err != nil && strings.Contains(err.Error(), "not supported") {
		return nil // a kernel without the family has no table of it
	}
	return err
}

// Words returns how many registers an address of the family takes.
func (f Family) Words() int {
	if f == IPv4 {
		return 1
	}
	return 4
}

// Mask returns the mask of a prefix of so many bits, of an address of so many bytes.
func Mask(bits, length int) []byte {
	mask := make([]byte, length)
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

// ProtocolNumber returns the number of a protocol by its name in the API: TCP, UDP or
// SCTP.
func ProtocolNumber(name string) byte {
	switch name {
	case "UDP":
		return unix.IPPROTO_UDP
	case "SCTP":
		return unix.IPPROTO_SCTP
	}
	return unix.IPPROTO_TCP
}
