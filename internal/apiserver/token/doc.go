// Package token issues and checks the JSON web tokens of service accounts, with
// upstream's claims and its TokenRequest rules. It may import Kubernetes' types
// and go-jose.
package token
