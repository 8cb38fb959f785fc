// Package framework holds what the scheduler and its plugins share: the plugin
// interfaces, the status a plugin answers with, the state of one scheduling
// cycle, and the view of nodes and pods that plugins decide on.
//
// It may import client-go, apimachinery and component-helpers; it imports
// nothing of the scheduler.
package framework
