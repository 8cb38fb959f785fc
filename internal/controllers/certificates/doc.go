// Package certificates answers CertificateSigningRequests: it approves those of
// kubelets that may have what they ask for, signs what is approved for the
// kubernetes.io signers, and removes what has been answered long ago:
// https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
//
// It may import internal/controllers and client-go.
package certificates
