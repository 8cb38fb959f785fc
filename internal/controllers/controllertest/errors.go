package controllertest

import utilruntime "k8s.io/apimachinery/pkg/util/runtime"

// The last of the handlers of errors lets a millisecond pass between two of them, and
// keeps the time of the last one for the whole process: in a bubble, whose time is years
// before that of the process, it would sleep for the years between, and the bubble's time
// go on by as much.
func init() { utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1] }
