package discovery

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keelson.dev/keelson/internal/api"
	"keelson.dev/keelson/internal/api/row"
)

// Resources returns the rows of discovery.k8s.io/v1.
func Resources() []*api.Resource {
	doc := v1.EndpointSlice{}.SwaggerDoc()
	r := api.Resource{
		Namespaced: true,
		Columns: []metav1.TableColumnDefinition{
			row.Name(),
			row.String("AddressType", doc["addressType"]),
			row.String("Ports", doc["ports"]),
			row.String("Endpoints", doc["endpoints"]),
			row.Age(),
		},
	}
	return []*api.Resource{row.New[v1.EndpointSliceList](v1.SchemeGroupVersion, r, row.Kind[*v1.EndpointSlice]{
		Generation: true,
		Spec: func(s *v1.EndpointSlice) any {
			return []any{s.AddressType, s.Endpoints, s.Ports, s.Labels}
		},
		Default:          setDefaults,
		PrepareForCreate: func(s *v1.EndpointSlice) { dropTopology(s, nil) },
		PrepareForUpdate: dropTopology,
		Validate:         validate,
		Warnings: func(s *v1.EndpointSlice) []string {
			return append(addressTypeWarnings(s.AddressType), addressWarnings(s)...)
		},
		UpdateWarnings: func(s, _ *v1.EndpointSlice) []string { return addressWarnings(s) },
		Cells: func(s *v1.EndpointSlice, now time.Time) []any {
			return []any{s.Name, string(s.AddressType), portsCell(s.Ports), endpointsCell(s.Endpoints), row.Created(s, now)}
		},
	})}
}

// setDefaults gives a port without a name the empty name, and one without a
// protocol TCP.
func setDefaults(s *v1.EndpointSlice) {
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Name == nil {
			p.Name = new(string)
		}
		if p.Protocol == nil {
			tcp := corev1.ProtocolTCP
			p.Protocol = &tcp
		}
	}
}

// cellItems is how many ports or addresses a cell shows.
const cellItems = 3

func portsCell(ports []v1.EndpointPort) string {
	var list []string
	for i := range ports {
		if i == cellItems {
			return strings.Join(list, ",") + fmt.Sprintf(" + %d more...", len(ports)-i)
		}
		p := &ports[i]
		switch {
		case p.Port != nil:
			list = append(list, strconv.Itoa(int(*p.Port)))
		case p.Name != nil && *p.Name != "":
			list = append(list, *p.Name)
		default:
			list = append(list, "*")
		}
	}
	if len(list) == 0 {
		return "<unset>"
	}
	return strings.Join(list, ",")
}

func endpointsCell(endpoints []v1.Endpoint) string {
	var list []string
	total := 0
	for i := range endpoints {
		for _, a := range endpoints[i].Addresses {
			if total++; total <= cellItems {
				list = append(list, a)
			}
		}
	}
	switch {
	case total == 0:
		return "<unset>"
	case total > cellItems:
		return strings.Join(list, ",") + fmt.Sprintf(" + %d more...", total-cellItems)
	}
	return strings.Join(list, ",")
}
