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

// Table is a table of this process's own. It remembers the generation of the kernel's
// tables at which it was known to be as it was written.
type Table struct {
	Family     Family
	Name       string
	generation uint32
}

// Begin begins a transaction that changes the table.
func (k *Table) Begin() *Tx { return Begin(k.Family, k.Name) }

// BeginNew begins a transaction that makes the table anew, whether there is one or not.
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

// Commit commits the transaction, and remembers the generation that it made if no
// other transaction came since the table was seen to be intact: known reports
// whether it is intact now, whatever was before.
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
		k.generation = before // so that Intact looks
	}
	return nil
}

// Intact reports whether the table is as it was written. Others' transactions change
// the generation; what is looked at then is whether these chains still have their
// rules.
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

// Remove takes the table away.
func (k *Table) Remove() error {
	t := k.Begin()
	t.AddTable()
	t.DeleteTable()
	err := t.Commit()
	if k.Family == IPv6 && errors.Is(err, unix.EAFNOSUPPORT) || err != nil && strings.Contains(err.Error(), "not supported") {
		return nil // where the family is not there, nothing of it is
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

// ProtocolNumber returns the number of a protocol by the name that the API has for it:
// TCP, UDP or SCTP.
func ProtocolNumber(name string) byte {
	switch name {
	case "UDP":
		return unix.IPPROTO_UDP
	case "SCTP":
		return unix.IPPROTO_SCTP
	}
	return unix.IPPROTO_TCP
}
