// Package reserved knows the addresses that no Service may take by naming them as external
// addresses of its own (CVE-2020-8554 and its like): the ranges of the Services' and of the
// pods' addresses, the API server's, and those that are of one machine or one link only. The
// service proxy and the announcer of load balancers' addresses ask it.
//
// It imports nothing of this module.
package reserved
