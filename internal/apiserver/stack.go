package apiserver

// handlerStack is the size of stack that most requests need, in bytes.
const handlerStack = 24 << 10

// growStack makes the goroutine's stack that big at once. net/http serves each
// request on a new goroutine, whose stack would else be copied to twice its size
// several times on the way down, deeper and thus dearer each time.
//
//go:noinline
func growStack(i int) byte {
	var room [handlerStack]byte
	room[i%handlerStack] = 1
	return room[(i+1)%handlerStack]
}
