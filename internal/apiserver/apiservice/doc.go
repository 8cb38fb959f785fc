// Package apiservice keeps APIServices: one for each group version that this
// API server serves itself, and whether those that other servers serve can be
// reached. It may import packages reconcile, apiserver/aggregation and
// api/catalogue.
package apiservice
