package askubectl_test

import (
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"k8s.io/kubectl/pkg/cmd/options"
	"k8s.io/kubectl/pkg/util/i18n"

	"keelson.dev/keelson/cmd/keelson/askubectl"
)

func TestArgs(t *testing.T) {
	for _, c := range []struct{ args, want []string }{
		{[]string{"/usr/bin/keelson", "kubectl", "get", "pods"}, []string{"kubectl", "get", "pods"}},
		{[]string{"/usr/bin/kubectl", "get", "pods"}, []string{"/usr/bin/kubectl", "get", "pods"}},
		{[]string{"keelson", "__complete", "kubectl", "get", ""}, []string{"kubectl", "__complete", "get", ""}},
		{[]string{"keelson", "__complete", "kube"}, nil},
		{[]string{"keelson", "up"}, nil},
		{[]string{"keelson"}, nil},
		{nil, nil},
	} {
		got, ok := askubectl.Args(c.args)
		if ok != (c.want != nil) || !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, %v; want %q", c.args, got, ok, c.want)
		}
	}
}

// translate has the test's program print a sentence that has a German translation.
const translate = "ASKUBECTL_TRANSLATE"

func TestMain(m *testing.M) {
	if text := os.Getenv(translate); text != "" {
		_ = options.NewCmdOptions(io.Discard) // a command, whose package translates when it is initialized
		_, _ = os.Stdout.WriteString(i18n.T(text))
		return
	}
	os.Exit(m.Run())
}

// TestTranslations checks that kubectl loads the translations of its user's
// language, and that nothing else loads them.
func TestTranslations(t *testing.T) {
	const text = "Delete the specified context from the kubeconfig"
	for program, want := range map[string]bool{"kubectl": true, "keelson": false} {
		cmd := exec.Command(os.Args[0])
		cmd.Args = []string{program}
		cmd.Env = append(os.Environ(), translate+"="+text, "LC_ALL=de_DE.UTF-8", "LANG=de_DE.UTF-8")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if translated := strings.TrimSpace(string(out)) != text; translated != want {
			t.Errorf("%s says %q", program, out)
		}
	}
}
