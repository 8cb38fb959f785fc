// Package aggregation tests the aggregation of an API server that others have built:
// upstream's k8s.io/sample-apiserver, which serves wardle.example.com, built in a
// module of its own (folder sampleapiserver), as a process on an etcd of its own.
package aggregation
