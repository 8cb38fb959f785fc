package flagvalue

import (
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestFlags(t *testing.T) {
	type options struct {
		off          bool
		every, least time.Duration
	}
	for _, c := range []struct {
		args    []string
		want    options
		strings [3]string
	}{
		{nil, options{false, time.Minute, time.Hour}, [3]string{"true", "1m0s", "3600"}},
		{[]string{"--on=false", "--every=2s", "--least=7"}, options{true, 2 * time.Second, 7 * time.Second}, [3]string{"false", "2s", "7"}},
		{[]string{"--on", "--every=0", "--least=0"}, options{false, Never, Never}, [3]string{"true", "0s", "0"}},
		{[]string{"--every=-1s", "--least=-1"}, options{false, -time.Second, -time.Second}, [3]string{"true", "-1s", "-1"}},
	} {
		var o options
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		NotVar(fs, &o.off, "on", "")
		IntervalVar(fs, &o.every, "every", time.Minute, "")
		SecondsVar(fs, &o.least, "least", time.Hour, "")
		if err := fs.Parse(c.args); err != nil {
			t.Errorf("%q: %v", c.args, err)
		}
		if o != c.want {
			t.Errorf("%q: got %+v, want %+v", c.args, o, c.want)
		}
		for i, name := range []string{"on", "every", "least"} {
			if s := fs.Lookup(name).Value.String(); s != c.strings[i] {
				t.Errorf("%q: --%s is %s, want %s", c.args, name, s, c.strings[i])
			}
		}
	}
	var cloud bool
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	WordVar(fs, &cloud, "cloud", "external", "no others", "")
	for _, c := range []struct {
		arg string
		set bool
	}{{"external", true}, {"", false}} {
		if err := fs.Parse([]string{"--cloud=" + c.arg}); err != nil || cloud != c.set || fs.Lookup("cloud").Value.String() != c.arg {
			t.Errorf("--cloud=%s: %v, %v", c.arg, cloud, err)
		}
	}
	NotVar(fs, new(bool), "on", "")
	IntervalVar(fs, new(time.Duration), "every", 0, "")
	SecondsVar(fs, new(time.Duration), "least", 0, "")
	for _, arg := range []string{"--on=perhaps", "--every=5", "--least=1s", "--cloud=other"} {
		if err := fs.Parse([]string{arg}); err == nil {
			t.Errorf("%s was taken", arg)
		}
	}
}
