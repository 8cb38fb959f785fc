package token

import (
	"github.com/spf13/pflag"

	"keelson.dev/keelson/internal/flagvalue"
)

// AddFlags adds upstream's flags of service accounts' tokens.
func (s *Selection) AddFlags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&s.Issuers, "service-account-issuer", nil, "issuer of service accounts' tokens; of several the first issues and all are accepted (default: https://kubernetes.default.svc.cluster.local)")
	fs.StringSliceVar(&s.Audiences, "api-audiences", nil, "audiences of which a token has to be for one (default: the issuer)")
	fs.StringVar(&s.JWKSURI, "service-account-jwks-uri", "", "URL of the keys in the discovery document of the issuer (default: this server's)")
	fs.StringVar(&s.SigningKeyFile, "service-account-signing-key-file", "", "file with the private key that tokens are signed with (default: the one in --data-dir)")
	fs.StringArrayVar(&s.KeyFiles, "service-account-key-file", nil, "file with public or private keys that tokens may be signed with, besides that; may be given several times")
	fs.StringVar(&s.SigningEndpoint, "service-account-signing-endpoint", "", "Unix socket of an external signer of service accounts' tokens (KEP-740), in place of --service-account-signing-key-file and --service-account-key-file")
	fs.DurationVar(&s.MaxExpiration, "service-account-max-token-expiration", 0, "maximum lifetime of requested tokens; 0 means 2^32 seconds")
	flagvalue.NotVar(fs, &s.NoExtension, "service-account-extend-token-expiration", "let the tokens that pods are given live for a year, and warn of the use of one that should have been replaced")
}
