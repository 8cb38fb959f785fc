// Package answer bounds what other servers answer: webhooks, issuers of tokens
// and aggregated API servers, whose clients read a whole answer before they look
// at it, however long it is; and the backends of proxies, whose redirects it
// refuses. It may import client-go and leaf packages of
// k8s.io/apiserver.
package answer
