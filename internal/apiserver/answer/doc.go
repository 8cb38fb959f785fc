// Package answer bounds what other servers answer: webhooks, issuers of tokens
// and aggregated API servers. Their clients read a whole answer before they look
// at it, however long it is. It may import client-go and leaf packages of
// k8s.io/apiserver.
package answer
