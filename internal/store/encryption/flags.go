package encryption

import "github.com/spf13/pflag"

// AddFlags adds upstream's flags of encryption at rest.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.File, "encryption-provider-config", "", "file with an EncryptionConfiguration: how which resources are encrypted at rest")
	fs.BoolVar(&o.Reload, "encryption-provider-config-automatic-reload", false, "read that file again when it changes")
}
