// Package harness has what system tests share: a network namespace of the test's own,
// servers in processes of their own, programs of other modules, free ports, and waiting for a condition.
// Below it, realnode starts a node that runs containers, imagetest makes images, and
// etcdtest runs etcd.
//
// It imports nothing of this module, so that the tests of every package may use it.
package harness
