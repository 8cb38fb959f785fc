// Package fairqueue decides when it is a request's turn within one priority level, by
// the fair queuing of KEP-1040: flows are dealt to queues, of the queues the one
// whose next request would have finished first, had each of them its share of the
// seats all the time, is next.
//
// It takes the place of the queue sets of k8s.io/apiserver under that library's
// controller of flow schemas and priority levels, with the same decisions and
// metrics. Those look at each of a level's queues several times for each request and
// give each a goroutine; these know which queues have something to do, and a request
// that there is a seat for passes without waiting for anything. It imports nothing
// of this project.
package fairqueue
