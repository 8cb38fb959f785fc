// Package askubectl reports whether the program is called as kubectl, and skips
// loading kubectl's translations where it is not: that takes longer at the start
// than all other initializers together. It is initialized before kubectl's
// commands, which then translate their descriptions, because it imports less.
package askubectl

import (
	"os"
	"path/filepath"
	"strings"

	"k8s.io/kubectl/pkg/util/i18n"
)

// completion is the prefix of cobra's commands that complete a line.
const completion = "__complete"

// Args returns kubectl's arguments if the program is to be kubectl: as
// "keelson kubectl …", to complete such a line, or called by that name through
// a link.
func Args(args []string) ([]string, bool) {
	switch {
	case len(args) == 0:
		return nil, false
	case filepath.Base(args[0]) == "kubectl":
		return args, true
	case len(args) > 1 && args[1] == "kubectl":
		return args[1:], true
	case len(args) > 2 && strings.HasPrefix(args[1], completion) && args[2] == "kubectl":
		return append([]string{"kubectl", args[1]}, args[3:]...), true
	}
	return nil, false
}

func init() {
	if _, ok := Args(os.Args); ok {
		return
	}
	// It fails only for no function.
	_ = i18n.SetLoadTranslationsFunc(func() error { return nil })
}
