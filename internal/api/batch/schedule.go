package batch

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// cronField is the range of one of a schedule's five fields.
type cronField struct {
	min, max uint64
	names    string // three letters each, from min on
}

var cronFields = [5]cronField{
	{0, 59, ""}, {0, 23, ""}, {1, 31, ""},
	{1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"}, {0, 6, "sunmontuewedthufrisat"},
}

// parseSchedule says what is wrong with a schedule in crontab's form, in the
// words of the parser that upstream uses.
func parseSchedule(spec string) error {
	if strings.HasPrefix(spec, "TZ=") || strings.HasPrefix(spec, "CRON_TZ=") {
		zone, rest, ok := strings.Cut(spec, " ")
		if !ok {
			return fmt.Errorf("empty spec string")
		}
		_, zone, _ = strings.Cut(zone, "=")
		if _, err := time.LoadLocation(zone); err != nil {
			return fmt.Errorf("provided bad location %s: %w", zone, err)
		}
		spec = strings.TrimSpace(rest)
	}
	if strings.HasPrefix(spec, "@") {
		return parseDescriptor(spec)
	}
	parts := strings.Fields(spec)
	if len(parts) != len(cronFields) {
		return fmt.Errorf("expected exactly 5 fields, found %d: %s", len(parts), parts)
	}
	for i, f := range cronFields {
		for expr := range strings.SplitSeq(parts[i], ",") {
			if err := f.check(expr); err != nil {
				return err
			}
		}
	}
	return nil
}

func parseDescriptor(spec string) error {
	switch spec {
	case "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly":
		return nil
	}
	if every, ok := strings.CutPrefix(spec, "@every "); ok {
		if _, err := time.ParseDuration(every); err != nil {
			return fmt.Errorf("failed to parse duration %s: %s", spec, err)
		}
		return nil
	}
	return fmt.Errorf("unrecognized descriptor: %s", spec)
}

// check takes one item of a field: *, a number or a range, with or without a
// step.
func (f cronField) check(expr string) error {
	span, step, stepped := strings.Cut(expr, "/")
	if strings.Contains(step, "/") {
		return fmt.Errorf("too many slashes: %s", expr)
	}
	low, high, ranged := strings.Cut(span, "-")
	start, end := f.min, f.max
	if low == "*" || low == "?" {
		if ranged {
			return fmt.Errorf("failed to parse int from %s: strconv.Atoi: parsing %q: invalid syntax", low, low)
		}
	} else {
		var err error
		if start, err = f.value(low); err != nil {
			return err
		}
		switch {
		case strings.Contains(high, "-"):
			return fmt.Errorf("too many hyphens: %s", expr)
		case ranged:
			if end, err = f.value(high); err != nil {
				return err
			}
		case !stepped:
			end = start
		}
	}
	if stepped {
		n, err := number(step)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("step of range should be a positive number: %s", expr)
		}
	}
	switch {
	case start < f.min:
		return fmt.Errorf("beginning of range (%d) below minimum (%d): %s", start, f.min, expr)
	case end > f.max:
		return fmt.Errorf("end of range (%d) above maximum (%d): %s", end, f.max, expr)
	case start > end:
		return fmt.Errorf("beginning of range (%d) beyond end of range (%d): %s", start, end, expr)
	}
	return nil
}

func (f cronField) value(s string) (uint64, error) {
	if len(s) == 3 {
		if i := strings.Index(f.names, strings.ToLower(s)); i >= 0 && i%3 == 0 {
			return f.min + uint64(i/3), nil
		}
	}
	return number(s)
}

func number(s string) (uint64, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("failed to parse int from %s: %s", s, err)
	}
	if n < 0 {
		return 0, fmt.Errorf("negative number (%d) not allowed: %s", n, s)
	}
	return uint64(n), nil
}
