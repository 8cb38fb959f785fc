package networking

import (
	"fmt"

	v1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func ingressWarnings(i *v1.Ingress) []string {
	if _, ok := i.Annotations[classAnnotation]; ok {
		return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", classAnnotation)}
	}
	return nil
}

// networkPolicyWarnings warns of CIDRs in forms that not all parsers read
// alike.
func networkPolicyWarnings(p *v1.NetworkPolicy) (out []string) {
	peers := func(list []v1.NetworkPolicyPeer, at *field.Path) {
		for i := range list {
			b, at := list[i].IPBlock, at.Index(i).Child("ipBlock")
			if b == nil {
				continue
			}
			out = append(out, validation.GetWarningsForCIDR(at.Child("cidr"), b.CIDR)...)
			for j := range b.Except {
				out = append(out, validation.GetWarningsForCIDR(at.Child("except").Index(j), b.Except[j])...)
			}
		}
	}
	for i := range p.Spec.Ingress {
		peers(p.Spec.Ingress[i].From, field.NewPath("spec", "ingress").Index(i).Child("from"))
	}
	for i := range p.Spec.Egress {
		peers(p.Spec.Egress[i].To, field.NewPath("spec", "egress").Index(i).Child("to"))
	}
	return out
}
