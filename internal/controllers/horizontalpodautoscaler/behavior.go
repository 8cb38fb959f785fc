package horizontalpodautoscaler

import (
	"math"
	"slices"
	"time"

	v2 "k8s.io/api/autoscaling/v2"
)

const (
	// Without a behavior the number is at most multiplied by scaleUpFactor, or
	// becomes scaleUpMinimum.
	scaleUpFactor, scaleUpMinimum = 2, 4
)

// past holds the recommendations and changes of an autoscaler.
type past struct {
	recommended []moment
	ups, downs  []moment
}

// moment is a number of replicas, or of their change, and its time.
type moment struct {
	n  int32
	at time.Time
}

// since returns the moments that are not before t.
func since(moments []moment, t time.Time) []moment {
	return slices.DeleteFunc(moments, func(m moment) bool { return m.at.Before(t) })
}

// verdict is a number of replicas with its conditions AbleToScale and
// ScalingLimited.
type verdict struct {
	replicas              int32
	able, ableMessage     string
	limited               bool
	limit, limitedMessage string
}

const (
	lowered  = "recent recommendations were lower than current one, applying the lowest recent recommendation"
	raised   = "recent recommendations were higher than current one, applying the highest recent recommendation"
	tooFast  = "the desired replica count is increasing faster than the maximum scale rate"
	tooSoon  = "the desired replica count is decreasing faster than the maximum scale rate"
	tooMany  = "the desired replica count is more than the maximum replica count"
	tooFew   = "the desired replica count is less than the minimum replica count"
	inRange  = "the desired count is within the acceptable range"
	matching = "recommended size matches current size"
)

// bounds holds the limits of the number of replicas.
type bounds struct {
	current, least, most int32
	behavior             *v2.HorizontalPodAutoscalerBehavior // nil for none
	// stabilization is for how long a number is kept that was recommended, where the
	// behavior does not say.
	stabilization time.Duration
}

// judge brings a desired number within bounds, and remembers it.
func (p *past) judge(desired int32, b bounds, now time.Time) verdict {
	v := verdict{able: "ReadyForNewScale", ableMessage: matching}
	var steady int32
	if b.behavior == nil {
		steady = p.stabilize(desired, b.stabilization, now)
		if steady != desired {
			v.able, v.ableMessage = "ScaleDownStabilized", raised
		}
		v.replicas, v.limit, v.limitedMessage = limit(steady, b)
	} else {
		steady = p.stabilizeBy(b, desired, now)
		switch {
		case steady == desired:
		case desired >= b.current:
			v.able, v.ableMessage = "ScaleUpStabilized", lowered
		default:
			v.able, v.ableMessage = "ScaleDownStabilized", raised
		}
		v.replicas, v.limit, v.limitedMessage = p.limitBy(steady, b, now)
	}
	v.limited = v.replicas != steady
	return v
}

// stabilize returns the greatest number that was recommended lately.
func (p *past) stabilize(desired int32, within time.Duration, now time.Time) int32 {
	p.recommended = append(since(p.recommended, now.Add(-within)), moment{desired, now})
	n := desired
	for _, r := range p.recommended {
		n = max(n, r.n)
	}
	return n
}

// stabilizeBy returns the number that is nearest to the current one of those between
// the least that was recommended in the window of increases and the greatest in that
// of decreases.
func (p *past) stabilizeBy(b bounds, desired int32, now time.Time) int32 {
	up, down := window(b.behavior.ScaleUp, 0), window(b.behavior.ScaleDown, b.stabilization)
	least, most := desired, desired
	p.recommended = since(p.recommended, now.Add(-max(up, down)))
	for _, r := range p.recommended {
		if r.at.After(now.Add(-up)) {
			least = min(least, r.n)
		}
		if r.at.After(now.Add(-down)) {
			most = max(most, r.n)
		}
	}
	p.recommended = append(p.recommended, moment{desired, now})
	return min(max(b.current, least), most)
}

func window(r *v2.HPAScalingRules, otherwise time.Duration) time.Duration {
	if r == nil || r.StabilizationWindowSeconds == nil {
		return otherwise
	}
	return time.Duration(*r.StabilizationWindowSeconds) * time.Second
}

// limit bounds a number without a behavior.
func limit(n int32, b bounds) (int32, string, string) {
	most, reason, message := b.most, "TooManyReplicas", tooMany
	if fast := count(max(scaleUpFactor*float64(b.current), scaleUpMinimum)); fast < b.most {
		most, reason, message = fast, "ScaleUpLimit", tooFast
	}
	switch {
	case n < b.least:
		return b.least, "TooFewReplicas", tooFew
	case n > most:
		return most, reason, message
	}
	return n, "DesiredWithinRange", inRange
}

// limitBy bounds a number by the policies of a behavior.
func (p *past) limitBy(n int32, b bounds, now time.Time) (int32, string, string) {
	switch {
	case n > b.current:
		most, reason, message := b.most, "TooManyReplicas", tooMany
		if fast := max(p.upTo(b.current, b.behavior.ScaleUp, now), b.current); fast < most {
			most, reason, message = fast, "ScaleUpLimit", tooFast
		}
		if n > most {
			return most, reason, message
		}
	case n < b.current:
		least, reason, message := b.least, "TooFewReplicas", tooFew
		if slow := min(p.downTo(b.current, b.behavior.ScaleDown, now), b.current); slow > least {
			least, reason, message = slow, "ScaleDownLimit", tooSoon
		}
		if n < least {
			return least, reason, message
		}
	}
	return n, "DesiredWithinRange", inRange
}

// before returns how many replicas there were at the beginning of a policy's period.
func (p *past) before(current int32, policy *v2.HPAScalingPolicy, now time.Time) int32 {
	begin := now.Add(-time.Duration(policy.PeriodSeconds) * time.Second)
	for _, c := range p.ups {
		if c.at.After(begin) {
			current -= c.n
		}
	}
	for _, c := range p.downs {
		if c.at.After(begin) {
			current += c.n
		}
	}
	return current
}

// selects reports whether rules select the policy with the least change, or, in off,
// no change at all.
func selects(r *v2.HPAScalingRules) (least, off bool) {
	if r == nil || r.SelectPolicy == nil {
		return false, false
	}
	return *r.SelectPolicy == v2.MinChangePolicySelect, *r.SelectPolicy == v2.DisabledPolicySelect
}

// upTo returns how many replicas the policies allow.
func (p *past) upTo(current int32, r *v2.HPAScalingRules, now time.Time) int32 {
	least, off := selects(r)
	if r == nil || off {
		return current
	}
	n := int32(math.MinInt32)
	if least {
		n = math.MaxInt32
	}
	for i := range r.Policies {
		policy := &r.Policies[i]
		begin := p.before(current, policy, now)
		to := count(float64(begin) + float64(policy.Value))
		if policy.Type == v2.PercentScalingPolicy {
			to = count(float64(begin) * (1 + float64(policy.Value)/100))
		}
		if least {
			n = min(n, to)
		} else {
			n = max(n, to)
		}
	}
	return n
}

// downTo returns how few replicas the policies allow.
func (p *past) downTo(current int32, r *v2.HPAScalingRules, now time.Time) int32 {
	least, off := selects(r)
	if r == nil || off {
		return current
	}
	n := int32(math.MaxInt32)
	if least {
		n = math.MinInt32
	}
	for i := range r.Policies {
		policy := &r.Policies[i]
		begin := p.before(current, policy, now)
		to := begin - policy.Value
		if policy.Type == v2.PercentScalingPolicy {
			to = int32(float64(begin) * (1 - float64(policy.Value)/100))
		}
		if least {
			n = max(n, to)
		} else {
			n = min(n, to)
		}
	}
	return n
}

// changed remembers a change, as long as a policy looks at it.
func (p *past) changed(b *v2.HorizontalPodAutoscalerBehavior, from, to int32, now time.Time) {
	if b == nil {
		return
	}
	longest := int32(0)
	for _, r := range []*v2.HPAScalingRules{b.ScaleUp, b.ScaleDown} {
		if r == nil {
			continue
		}
		for i := range r.Policies {
			longest = max(longest, r.Policies[i].PeriodSeconds)
		}
	}
	old := now.Add(-time.Duration(longest) * time.Second)
	p.ups, p.downs = since(p.ups, old), since(p.downs, old)
	if to > from {
		p.ups = append(p.ups, moment{to - from, now})
	} else {
		p.downs = append(p.downs, moment{from - to, now})
	}
}
