package apiserver

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// boundYAML refuses a document whose JSON, with its aliases expanded, would have more
// than about MaxBody bytes. The decoders bound the number of values that aliases expand
// to, and not their length: two thousand times one string of 500 kB is a gigabyte. It is
// called before the decoders, and expands nothing.
func boundYAML(data []byte) error {
	if bytes.IndexByte(data, '&') < 0 || bytes.IndexByte(data, '*') < 0 {
		return nil // no aliases
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("error converting YAML to JSON: %v", err))
	}
	size, err := expansion{}.size(&doc)
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("error converting YAML to JSON: yaml: %v", err))
	}
	if size > MaxBody {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d, with the document's aliases expanded", MaxBody))
	}
	return nil
}

// expansion maps nodes to their expanded sizes, up to MaxBody+1; -1 marks a node
// whose size is being computed.
type expansion map[*yaml.Node]int

// perNode is the number of bytes that a node takes in JSON beside its value:
// quotes, brackets, a comma.
const perNode = 3

func (e expansion) size(n *yaml.Node) (int, error) {
	if n.Kind == yaml.AliasNode {
		return e.size(n.Alias)
	}
	switch size, ok := e[n]; {
	case size < 0:
		return 0, fmt.Errorf("anchor '%s' value contains itself", n.Anchor)
	case ok:
		return size, nil
	}
	// Only a node with an anchor is visited twice.
	if n.Anchor != "" {
		e[n] = -1
	}
	size := perNode + len(n.Value)
	for _, c := range n.Content {
		part, err := e.size(c)
		if err != nil {
			return 0, err
		}
		size = min(size+part, MaxBody+1)
	}
	if n.Anchor != "" {
		e[n] = size
	}
	return size, nil
}
