package etcd

import (
	"time"

	"github.com/spf13/pflag"

	"keelson.dev/keelson/internal/flagvalue"
)

// AddFlags adds upstream's flags of etcd.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&o.Servers, "etcd-servers", nil, "etcd servers (scheme://ip:port), comma separated, to keep the objects in (default: the store in --data-dir). "+
		"Several servers may share one etcd: copy the folder pki of the first one's --data-dir into the others' before they start")
	fs.StringVar(&o.CAFile, "etcd-cafile", "", "SSL Certificate Authority file used to secure etcd communication")
	fs.StringVar(&o.CertFile, "etcd-certfile", "", "SSL certification file used to secure etcd communication")
	fs.StringVar(&o.KeyFile, "etcd-keyfile", "", "SSL key file used to secure etcd communication")
	fs.StringVar(&o.Prefix, "etcd-prefix", root, "prefix to prepend to all resource paths in etcd")
	flagvalue.IntervalVar(fs, &o.CompactionInterval, "etcd-compaction-interval", 5*time.Minute, "how often etcd is compacted, to the revision of that time ago; 0 means never")
}
