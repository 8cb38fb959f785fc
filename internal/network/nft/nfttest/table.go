package nfttest

import (
	"fmt"
	"slices"
)

// Table is a table whose sets and maps have keys of type K and values of type V, and
// whose chains have rules of type R. The zero value does not exist before Reset.
type Table[K, V comparable, R any] struct {
	Sets   map[string]map[K]V
	Chains map[string][]R
	// Writes counts the transactions, Replaced the calls of Reset.
	Writes, Replaced int
	// Changes is the number of elements and chains that the last transaction changed.
	Changes int
	// Fail, if set, is the error of each transaction.
	Fail error
	// Gone marks the table as deleted by another process.
	Gone bool

	err error // the first one of the transaction
}

// Reset replaces the table by one with these empty sets and chains.
func (t *Table[K, V, R]) Reset(sets, chains []string) {
	t.Sets, t.Chains, t.Gone = map[string]map[K]V{}, map[string][]R{}, false
	for _, s := range sets {
		t.Sets[s] = map[K]V{}
	}
	for _, c := range chains {
		t.Chains[c] = nil
	}
	t.Replaced++
}

// Commit runs a transaction, whose changes are made by calls of the methods below, and
// returns its first error.
func (t *Table[K, V, R]) Commit(changes func()) error {
	if t.Fail != nil {
		return t.Fail
	}
	if t.Gone || t.Chains == nil {
		return fmt.Errorf("no such table")
	}
	t.Writes++
	t.Changes, t.err = 0, nil
	changes()
	return t.err
}

func (t *Table[K, V, R]) refuse(format string, args ...any) {
	if t.err == nil {
		t.err = fmt.Errorf(format, args...)
	}
}

// AddSet adds a set or map.
func (t *Table[K, V, R]) AddSet(name string) {
	if t.Sets[name] != nil {
		t.refuse("add set %s: it exists", name)
	}
	t.Sets[name] = map[K]V{}
}

// DeleteSet deletes a set or map.
func (t *Table[K, V, R]) DeleteSet(name string) {
	if t.Sets[name] == nil {
		t.refuse("delete set %s: it does not exist", name)
	}
	delete(t.Sets, name)
}

// Add adds an element.
func (t *Table[K, V, R]) Add(set string, key K, value V) {
	t.Changes++
	if t.Sets[set] == nil {
		t.refuse("add %+v: no set %s", key, set)
		return
	}
	if v, exists := t.Sets[set][key]; exists {
		t.refuse("add %+v to set %s: it exists with the value %+v", key, set, v)
	}
	t.Sets[set][key] = value
}

// Delete deletes an element, which must have that value.
func (t *Table[K, V, R]) Delete(set string, key K, value V) {
	t.Changes++
	if v, exists := t.Sets[set][key]; !exists || v != value {
		t.refuse("delete %+v with the value %+v from set %s: it has %+v", key, value, set, v)
	}
	delete(t.Sets[set], key)
}

// AddChain adds a chain without rules.
func (t *Table[K, V, R]) AddChain(name string) {
	if _, exists := t.Chains[name]; exists {
		t.refuse("add chain %s: it exists", name)
	}
	t.Chains[name] = nil
}

// SetRules replaces the rules of a chain.
func (t *Table[K, V, R]) SetRules(chain string, rules []R) {
	t.Changes++
	if _, exists := t.Chains[chain]; !exists {
		t.refuse("rules of chain %s: it does not exist", chain)
	}
	t.Chains[chain] = slices.Clone(rules)
}

// DeleteChain deletes a chain.
func (t *Table[K, V, R]) DeleteChain(name string) { delete(t.Chains, name) }

// Check returns an error for references to chains or sets that do not exist. target
// returns the chain to which a value leads, "" for none; references returns the chains
// and sets of a rule.
func (t *Table[K, V, R]) Check(target func(V) string, references func(R) (chains, sets []string)) error {
	for s, all := range t.Sets {
		for k, v := range all {
			if _, exists := t.Chains[target(v)]; target(v) != "" && !exists {
				return fmt.Errorf("%s %+v leads to chain %s, which does not exist", s, k, target(v))
			}
		}
	}
	for name, rules := range t.Chains {
		for _, r := range rules {
			chains, sets := references(r)
			for _, c := range chains {
				if _, exists := t.Chains[c]; c != "" && !exists {
					return fmt.Errorf("chain %s leads to %s, which does not exist", name, c)
				}
			}
			for _, s := range sets {
				if s != "" && t.Sets[s] == nil {
					return fmt.Errorf("chain %s uses the set %s, which does not exist", name, s)
				}
			}
		}
	}
	return nil
}

// Intact reports whether the table is as it was written.
func (t *Table[K, V, R]) Intact() (bool, error) { return !t.Gone, nil }

// Remove deletes the table.
func (t *Table[K, V, R]) Remove() error {
	t.Sets, t.Chains = nil, nil
	return nil
}
