// Package service is upstream's service-lb-controller: it has a Balancer of
// internal/network/lb give Services of the type LoadBalancer their addresses, and
// take them away again, and tells of it in events. Services whose class is another's
// (spec.loadBalancerClass) are left alone.
package service
