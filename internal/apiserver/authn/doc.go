// Package authn says who a request comes from: client certificates of the
// cluster's CA, service accounts' tokens, or nobody (system:anonymous).
package authn
