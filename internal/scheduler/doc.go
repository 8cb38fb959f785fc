// Package scheduler binds pods to nodes: a queue of pods, an incremental
// picture of the nodes with what runs on them, and plugins that filter and
// score, as upstream's scheduling framework has them. It talks to the API
// server only. It may import client-go and the packages below it.
package scheduler
