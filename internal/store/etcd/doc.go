// Package etcd is the store's engine for several servers: it keeps the objects
// in an existing etcd cluster (3.4 or later), at the keys and in the form in
// which upstream keeps them, so that an etcd which upstream's API server wrote
// can be opened, and the other way round.
//
// Each server has the state in memory, as the embedded engine has. One watch of
// etcd feeds it. That watch covers all keys, since every revision of etcd changes
// some key: so the state knows of every revision, and no progress notification,
// which old versions of etcd may send too early, has to be trusted. A write is
// a transaction that compares the key's revision; it is acknowledged when the
// watch has brought it. A read asks etcd for its revision (all readers that wait
// share a question), waits until the watch has brought that, and is answered from
// memory: it sees what any server has acknowledged. It may import packages store
// and memory, and nothing of the layers above.
package etcd
