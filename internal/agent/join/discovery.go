package join

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/jws"
)

// Hash returns the hash of an authority's public key, sha256:<hex> of its
// SubjectPublicKeyInfo (RFC 7469), by which a machine recognizes the cluster.
func Hash(authority *x509.Certificate) string {
	sum := sha256.Sum256(authority.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Hashes returns the hashes of the authorities of a bundle in PEM.
func Hashes(bundle []byte) ([]string, error) {
	all, err := certutil.ParseCertsPEM(bundle)
	if err != nil {
		return nil, fmt.Errorf("the cluster's authority: %w", err)
	}
	var out []string
	for _, c := range all {
		out = append(out, Hash(c))
	}
	return out, nil
}

// ValidateHash returns an error if s has not the form of a hash.
func ValidateHash(s string) error {
	kind, sum, _ := strings.Cut(s, ":")
	if b, err := hex.DecodeString(sum); kind != "sha256" || err != nil || len(b) != sha256.Size {
		return fmt.Errorf("invalid hash %q: give sha256: and 64 hexadecimal digits, as keelson token create --print-join-command prints it", s)
	}
	return nil
}

// discoveryPatience is how long a token that has just been made may lack its
// signature.
var discoveryPatience = time.Minute

// Discover returns the authority of the API server at that URL, in PEM. The first
// request goes to an unknown server: its answer counts only if it is signed by the
// token, and if all of its authorities have one of the hashes. A second request has to
// be answered under that authority.
func Discover(ctx context.Context, server string, t Token, hashes []string) ([]byte, error) {
	for _, h := range hashes {
		if err := ValidateHash(h); err != nil {
			return nil, err
		}
	}
	if len(hashes) == 0 {
		return nil, errors.New("the cluster's authority cannot be known without the hash of its key: give --ca-hash")
	}
	info, err := clusterInfoOf(ctx, &rest.Config{Host: server, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, t)
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.Load([]byte(info))
	if err != nil || len(config.Clusters) != 1 {
		return nil, fmt.Errorf("the %s ConfigMap has no kubeconfig of one cluster (%w)", api.ConfigMapClusterInfo, err)
	}
	var ca []byte
	for _, c := range config.Clusters {
		ca = c.CertificateAuthorityData
	}
	have, err := Hashes(ca)
	if err != nil {
		return nil, err
	}
	for _, h := range have {
		if !slices.Contains(hashes, strings.ToLower(h)) {
			return nil, fmt.Errorf("the API server's authority has the hash %s, and not the one that was given with --ca-hash: either that is of another cluster, or somebody answers in its place", h)
		}
	}
	again, err := clusterInfoOf(ctx, &rest.Config{Host: server, TLSClientConfig: rest.TLSClientConfig{CAData: ca}}, t)
	if err != nil {
		return nil, err
	}
	if again != info {
		return nil, fmt.Errorf("the second %s is not the first: somebody else may have answered first; try again", api.ConfigMapClusterInfo)
	}
	return ca, nil
}

// clusterInfoOf returns the kubeconfig of cluster-info after checking its signature
// by the token.
func clusterInfoOf(ctx context.Context, config *rest.Config, t Token) (kubeconfig string, err error) {
	ctx, cancel := context.WithTimeout(ctx, discoveryPatience)
	defer cancel()
	config.Timeout, config.QPS = 10*time.Second, -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return "", err
	}
	var last error
	err = wait.PollUntilContextCancel(ctx, 500*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		info, err := client.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(ctx, api.ConfigMapClusterInfo, metav1.GetOptions{})
		if ctx.Err() != nil {
			return false, ctx.Err() // the error of the last attempt says more
		}
		last = err
		switch {
		case apierrors.IsNotFound(last), apierrors.IsForbidden(last), apierrors.IsUnauthorized(last):
			last = fmt.Errorf("the cluster has no %s that machines may read: run keelson token create on it: %w", api.ConfigMapClusterInfo, last)
			return false, nil //nolint:nilerr // retried
		case last != nil:
			return false, nil //nolint:nilerr // retried
		}
		kubeconfig = info.Data[api.KubeConfigKey]
		signature, ok := info.Data[api.JWSSignatureKeyPrefix+t.ID]
		if !ok {
			last = fmt.Errorf("the token %q is invalid for this cluster or it has expired: make another with keelson token create", t.ID)
			return false, nil
		}
		if !jws.DetachedTokenIsValid(signature, kubeconfig, t.ID, t.Secret) {
			return false, fmt.Errorf("the %s is not signed by the token %q: the token is that of another cluster, or somebody answers in its place", api.ConfigMapClusterInfo, t.ID)
		}
		return true, nil
	})
	if wait.Interrupted(err) && last != nil {
		err = last
	}
	if err != nil {
		return "", fmt.Errorf("asking %s for the cluster's authority: %w", config.Host, err)
	}
	return kubeconfig, nil
}
