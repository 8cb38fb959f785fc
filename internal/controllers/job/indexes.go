package job

import (
	"strconv"
	"strings"

	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
)

// span is the indexes from first to last.
type span struct{ first, last int }

// indexes is a set of completion indexes: spans in order, with gaps between.
type indexes []span

// parseIndexes reads a status' list such as "1,3-5,7", as far as it is below
// completions. What it cannot read is left out.
func parseIndexes(list string, completions int) indexes {
	var out indexes
	if list == "" {
		return out
	}
	for item := range strings.SplitSeq(list, ",") {
		from, to, ranged := strings.Cut(item, "-")
		first, err := strconv.Atoi(from)
		if err != nil || first < 0 || first >= completions {
			continue
		}
		last := first
		if ranged {
			if last, err = strconv.Atoi(to); err != nil || last < first {
				continue
			}
		}
		out = out.union(indexes{{first, min(last, completions-1)}})
	}
	return out
}

// String returns the form that parseIndexes reads: a span of two is two numbers.
func (x indexes) String() string {
	var b strings.Builder
	for _, s := range x {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(s.first))
		switch s.last - s.first {
		case 0:
			continue
		case 1:
			b.WriteByte(',')
		default:
			b.WriteByte('-')
		}
		b.WriteString(strconv.Itoa(s.last))
	}
	return b.String()
}

// count returns the number of indexes.
func (x indexes) count() (n int) {
	for _, s := range x {
		n += s.last - s.first + 1
	}
	return n
}

// has reports whether i is among them.
func (x indexes) has(i int) bool {
	for _, s := range x {
		if i <= s.last {
			return i >= s.first
		}
	}
	return false
}

// with adds single indexes.
func (x indexes) with(more ...int) indexes {
	for _, i := range more {
		x = x.union(indexes{{i, i}})
	}
	return x
}

// union returns the indexes of both.
func (x indexes) union(y indexes) indexes {
	out := make(indexes, 0, len(x)+len(y))
	for len(x) > 0 || len(y) > 0 {
		var next span
		if len(y) == 0 || len(x) > 0 && x[0].first <= y[0].first {
			next, x = x[0], x[1:]
		} else {
			next, y = y[0], y[1:]
		}
		if n := len(out); n > 0 && next.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, next.last)
		} else {
			out = append(out, next)
		}
	}
	return out
}

// overlap returns the number of indexes in both.
func (x indexes) overlap(y indexes) (n int) {
	for len(x) > 0 && len(y) > 0 {
		if common := min(x[0].last, y[0].last) - max(x[0].first, y[0].first) + 1; common > 0 {
			n += common
		}
		if x[0].last < y[0].last {
			x = x[1:]
		} else {
			y = y[1:]
		}
	}
	return n
}

// gaps returns the first n indexes below completions that are not among x.
func (x indexes) gaps(n, completions int) []int {
	var out []int
	i := 0
	for _, s := range x {
		for ; i < s.first && i < completions && len(out) < n; i++ {
			out = append(out, i)
		}
		i = max(i, s.last+1)
	}
	for ; i < completions && len(out) < n; i++ {
		out = append(out, i)
	}
	return out
}

// indexed reports whether each completion of the Job has an index.
func indexed(j *batch.Job) bool {
	return j.Spec.CompletionMode != nil && *j.Spec.CompletionMode == batch.IndexedCompletion
}

// indexOf returns the completion index of a pod, -1 if it has none.
func indexOf(p *v1.Pod) int {
	i, err := strconv.Atoi(p.Annotations[batch.JobCompletionIndexAnnotation])
	if err != nil || i < 0 {
		return -1
	}
	return i
}

// validIndex reports whether a pod's index is one that the Job counts; each pod
// of a Job without indexes is counted.
func validIndex(j *batch.Job, p *v1.Pod) bool {
	if !indexed(j) {
		return true
	}
	i := indexOf(p)
	return i >= 0 && i < int(*j.Spec.Completions)
}

// indexesOf returns the indexes of pods.
func indexesOf(pods []*v1.Pod) indexes {
	var x indexes
	for _, p := range pods {
		if i := indexOf(p); i >= 0 {
			x = x.with(i)
		}
	}
	return x
}

// limitedPerIndex reports whether each index has a backoff limit of its own
// (KEP-3850).
func limitedPerIndex(j *batch.Job) bool { return indexed(j) && j.Spec.BackoffLimitPerIndex != nil }
