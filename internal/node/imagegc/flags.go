package imagegc

import "github.com/spf13/pflag"

// AddFlags adds the kubelet's flags of the collection of images, with their
// defaults.
func (p *Policy) AddFlags(fs *pflag.FlagSet) {
	*p = DefaultPolicy
	fs.IntVar(&p.HighThreshold, "image-gc-high-threshold", p.HighThreshold, "percentage of the images' file system above which unused images are removed")
	fs.IntVar(&p.LowThreshold, "image-gc-low-threshold", p.LowThreshold, "percentage of the images' file system down to which they are")
	fs.DurationVar(&p.MinAge, "minimum-image-ttl-duration", p.MinAge, "how long an unused image is kept at least")
	fs.DurationVar(&p.MaxAge, "maximum-image-ttl-duration", p.MaxAge, "how long an unused image is kept at most; 0 is as long as there is room")
}
