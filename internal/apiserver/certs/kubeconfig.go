package certs

import (
	"fmt"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Kubeconfig returns a configuration with one cluster, user and context, all
// called name.
func Kubeconfig(name, server string, ca []byte, client Pair) *clientcmdapi.Config {
	c := clientcmdapi.NewConfig()
	c.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	c.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: client.Cert, ClientKeyData: client.Key}
	c.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	c.CurrentContext = name
	return c
}

// Merge puts add's entries into the user's kubeconfig (KUBECONFIG, else
// ~/.kube/config), makes its context the current one, and touches no other
// entry. It returns the file written.
func Merge(add *clientcmdapi.Config) (string, error) {
	access := clientcmd.NewDefaultPathOptions()
	c, err := access.GetStartingConfig()
	if err != nil {
		return "", fmt.Errorf("reading the kubeconfig %s: %w: repair it, or set KUBECONFIG to another file", access.GetDefaultFilename(), err)
	}
	// An entry is written where it came from: a new one belongs to the default
	// file, one that is replaced stays in its own.
	for k, v := range add.Clusters {
		v.LocationOfOrigin = ""
		if old := c.Clusters[k]; old != nil {
			v.LocationOfOrigin = old.LocationOfOrigin
		}
		c.Clusters[k] = v
	}
	for k, v := range add.AuthInfos {
		v.LocationOfOrigin = ""
		if old := c.AuthInfos[k]; old != nil {
			v.LocationOfOrigin = old.LocationOfOrigin
		}
		c.AuthInfos[k] = v
	}
	for k, v := range add.Contexts {
		v.LocationOfOrigin = ""
		if old := c.Contexts[k]; old != nil {
			v.Namespace, v.LocationOfOrigin = old.Namespace, old.LocationOfOrigin
		}
		c.Contexts[k] = v
	}
	c.CurrentContext = add.CurrentContext
	return access.GetDefaultFilename(), clientcmd.ModifyConfig(access, *c, true)
}

// Remove takes the entries called name out of the user's kubeconfig.
func Remove(name string) error {
	access := clientcmd.NewDefaultPathOptions()
	c, err := access.GetStartingConfig()
	if err != nil {
		return err
	}
	if c.Clusters[name] == nil && c.AuthInfos[name] == nil && c.Contexts[name] == nil {
		return nil
	}
	delete(c.Clusters, name)
	delete(c.AuthInfos, name)
	delete(c.Contexts, name)
	if c.CurrentContext == name {
		c.CurrentContext = ""
	}
	return clientcmd.ModifyConfig(access, *c, true)
}
