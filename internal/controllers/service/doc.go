// Package service is upstream's service-lb-controller: it calls a Balancer of
// internal/network/lb to give Services of the type LoadBalancer their addresses and
// to take them away again, and records events. Services whose class is another's
// (spec.loadBalancerClass) are left alone.
package service
