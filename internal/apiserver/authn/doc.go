// Package authn identifies the user of a request by client certificates of the
// cluster's CA, service accounts' tokens and the credentials that are
// configured; without any it is system:anonymous.
package authn
