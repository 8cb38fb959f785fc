package framework

// StateData is a plugin's own data in a CycleState.
type StateData interface {
	// Clone copies what AddPod and RemovePod change.
	Clone() StateData
}

// CycleState carries data between the extension points of one scheduling
// cycle. One goroutine at a time uses it.
type CycleState struct {
	data map[string]StateData
	// SkipFilter and SkipScore name plugins that returned Skip at PreFilter and
	// at PreScore.
	SkipFilter, SkipScore Names
}

// Names is a short list of plugin names.
type Names []string

// Has reports whether name is listed.
func (n Names) Has(name string) bool {
	for _, s := range n {
		if s == name {
			return true
		}
	}
	return false
}

// NewCycleState makes an empty state.
func NewCycleState() *CycleState { return &CycleState{data: map[string]StateData{}} }

// Read returns the data under key, nil when there is none.
func (c *CycleState) Read(key string) StateData { return c.data[key] }

// Write stores data under key.
func (c *CycleState) Write(key string, d StateData) { c.data[key] = d }

// Clone copies the state so that a what-if may change it.
func (c *CycleState) Clone() *CycleState {
	out := &CycleState{data: make(map[string]StateData, len(c.data)), SkipFilter: c.SkipFilter, SkipScore: c.SkipScore}
	for k, v := range c.data {
		out.data[k] = v.Clone()
	}
	return out
}
