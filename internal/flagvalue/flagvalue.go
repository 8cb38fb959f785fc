package flagvalue

import (
	"errors"
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// Never is the value of an option whose flag is a duration of 0.
const Never time.Duration = -1

// NotVar adds a flag of a bool whose negation is kept in p.
func NotVar(fs *pflag.FlagSet, p *bool, name, usage string) {
	fs.VarPF((*not)(p), name, "", usage).NoOptDefVal = "true"
}

type not bool

// Set implements pflag.Value.
func (n *not) Set(s string) error {
	v, err := strconv.ParseBool(s)
	*n = not(!v)
	return err
}

// String implements pflag.Value.
func (n *not) String() string { return strconv.FormatBool(!bool(*n)) }

// Type implements pflag.Value.
func (n *not) Type() string { return "bool" }

// WordVar adds a flag that is empty or the word; p is whether it is the word. Any
// other value is refused with why.
func WordVar(fs *pflag.FlagSet, p *bool, name, word, why, usage string) {
	fs.Var(&oneWord{p, word, why}, name, usage)
}

type oneWord struct {
	set       *bool
	word, why string
}

// Set implements pflag.Value.
func (w *oneWord) Set(s string) error {
	if s != "" && s != w.word {
		return errors.New(w.why)
	}
	*w.set = s == w.word
	return nil
}

// String implements pflag.Value.
func (w *oneWord) String() string {
	if w.set != nil && *w.set {
		return w.word
	}
	return ""
}

// Type implements pflag.Value.
func (*oneWord) Type() string { return "string" }

// IntervalVar adds a flag of a duration; p is Never where it is 0.
func IntervalVar(fs *pflag.FlagSet, p *time.Duration, name string, value time.Duration, usage string) {
	*p = value
	fs.Var((*interval)(p), name, usage)
}

type interval time.Duration

// Set implements pflag.Value.
func (i *interval) Set(s string) error {
	d, err := time.ParseDuration(s)
	*i = interval(orNever(d))
	return err
}

// String implements pflag.Value.
func (i *interval) String() string { return orZero(time.Duration(*i)).String() }

// Type implements pflag.Value.
func (i *interval) Type() string { return "duration" }

// SecondsVar adds a flag of a number of seconds; p is Never where it is 0.
func SecondsVar(fs *pflag.FlagSet, p *time.Duration, name string, value time.Duration, usage string) {
	*p = value
	fs.Var((*seconds)(p), name, usage)
}

type seconds time.Duration

// Set implements pflag.Value.
func (v *seconds) Set(s string) error {
	n, err := strconv.ParseInt(s, 0, 32)
	*v = seconds(orNever(time.Duration(n) * time.Second))
	return err
}

// String implements pflag.Value.
func (v *seconds) String() string {
	return strconv.FormatInt(int64(orZero(time.Duration(*v))/time.Second), 10)
}

// Type implements pflag.Value.
func (v *seconds) Type() string { return "int" }

func orNever(d time.Duration) time.Duration {
	if d == 0 {
		return Never
	}
	return d
}

func orZero(d time.Duration) time.Duration {
	if d == Never {
		return 0
	}
	return d
}
