package apiserver

// handlerStack is the size of stack that most requests need, in bytes.
const handlerStack = 24 << 10

// growStack grows the goroutine's stack to handlerStack at once. net/http serves
// each request on a new goroutine, whose stack would otherwise be doubled and
// copied several times, at greater depth and cost each time.
//
//go:noinline
func growStack(i int) byte {
	var room [handlerStack]byte
	room[i%handlerStack] = 1
	return room[(i+1)%handlerStack]
}
