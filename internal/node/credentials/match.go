package credentials

import (
	"net"
	"net/url"
	"path"
	"slices"
	"strings"
)

// Match reports whether credentials that are for pattern are for the image: its
// registry with as many parts, each of which may have globs in the pattern, the port
// if the pattern has one, and a path that begins as the pattern's
// (https://kubernetes.io/docs/concepts/containers/images/#config-json).
func Match(pattern, image string) bool {
	p, i := split(pattern), split(image)
	if p.port != "" && p.port != i.port || !within(p.path, i.path) {
		return false
	}
	parts, given := strings.Split(p.host, "."), strings.Split(i.host, ".")
	if len(parts) != len(given) {
		return false
	}
	for n := range parts {
		if ok, err := path.Match(parts[n], given[n]); err != nil || !ok {
			return false
		}
	}
	return true
}

// within reports whether the path is below the prefix, which has whole parts of it.
func within(prefix, path string) bool {
	prefix = strings.TrimSuffix(prefix, "/")
	return prefix == "" || path == prefix || strings.HasPrefix(path, prefix+"/")
}

type location struct{ host, port, path string }

// split reads a pattern or an image without its tag. The API versions of registries,
// which old configurations have in their URLs, are no part of the path.
func split(s string) location {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return location{host: s}
	}
	host, port := u.Host, ""
	if h, p, err := net.SplitHostPort(u.Host); err == nil {
		host, port = h, p
	}
	if host == "docker.io" || host == "registry-1.docker.io" {
		host = "index.docker.io"
	}
	if slices.Contains([]string{"/v1", "/v1/", "/v2", "/v2/"}, u.Path) {
		u.Path = ""
	}
	return location{host, port, u.Path}
}

// Order sorts patterns as they are tried: the longer of two with the same beginning
// first, and those without globs before those with.
func Order(patterns []string) {
	slices.Sort(patterns)
	slices.Reverse(patterns)
}
