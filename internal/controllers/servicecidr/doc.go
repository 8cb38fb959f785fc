// Package servicecidr keeps ServiceCIDRs (KEP-1880): a finalizer holds each back for
// as long as addresses of Services are of no other range, and the condition Ready says
// whether addresses are given out. It may import package controllers.
package servicecidr
