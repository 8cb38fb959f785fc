package events

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	v1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

func parse[T any](t *testing.T, texts ...string) *T {
	t.Helper()
	o := new(T)
	for _, text := range texts {
		if err := yaml.UnmarshalStrict([]byte(text), o); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	return o
}

func expect(t *testing.T, what string, errs field.ErrorList, want []string) {
	t.Helper()
	var got []string
	for _, e := range errs {
		got = append(got, e.Error())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

const elsewhere = `involvedObject.namespace: Invalid value: "": does not match event.namespace`

func TestCoreEvent(t *testing.T) {
	const newer = "{metadata: {name: e, namespace: ns}, involvedObject: {namespace: ns}, eventTime: '2026-01-02T03:04:05.000006Z'," +
		" reportingComponent: c, reportingInstance: i, action: a, reason: r}"
	for _, c := range []struct {
		text string
		want []string
	}{
		{"{metadata: {namespace: ns}, involvedObject: {namespace: ns}}", nil},
		{"{metadata: {namespace: default}}", nil},
		{"{metadata: {namespace: kube-system}}", []string{elsewhere}},
		{"{metadata: {namespace: ns}, involvedObject: {namespace: other}}", []string{`involvedObject.namespace: Invalid value: "other": does not match event.namespace`}},
		{newer, nil},
		// The newer kind is about an object of any namespace.
		{strings.Replace(newer, "involvedObject: {namespace: ns}", "involvedObject: {namespace: other}", 1), nil},
		{strings.Replace(newer, "involvedObject: {namespace: ns}", "involvedObject: {}", 1), []string{elsewhere}},
		{strings.Replace(newer, "reportingComponent: c, reportingInstance: i, action: a, reason: r", "message: "+strings.Repeat("x", 1025), 1), []string{
			"action: Required value", "reason: Required value", "reportingController: Required value", "reportingInstance: Required value",
			`message: Invalid value: "": can have at most 1024 characters`,
			`reportingController: Invalid value: "": name part must be non-empty`,
			`reportingController: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`}},
		{strings.Replace(newer, "action: a", "action: "+strings.Repeat("x", 129), 1), []string{`action: Invalid value: "": can have at most 128 characters`}},
	} {
		expect(t, c.text, ValidateCore(parse[corev1.Event](t, c.text)), c.want)
	}
}

const event = "{metadata: {name: e, namespace: ns}, regarding: {namespace: ns}, eventTime: '2026-01-02T03:04:05.000006Z'," +
	" reportingController: example.com/c, reportingInstance: i, action: a, reason: r, type: Normal}"

func TestNewEvent(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"{}", nil},
		{"{type: Odd}", []string{`type: Invalid value: "": has invalid value: Odd`}},
		{"{eventTime: null}", []string{"eventTime: Required value"}},
		{"{deprecatedCount: 1, deprecatedSource: {host: h}, deprecatedFirstTimestamp: '2026-01-02T03:04:05Z', deprecatedLastTimestamp: '2026-01-02T03:04:05Z'}", []string{
			`count: Invalid value: "": needs to be unset`, `source: Invalid value: "": needs to be unset`,
			`firstTimestamp: Invalid value: "": needs to be unset`, `lastTimestamp: Invalid value: "": needs to be unset`}},
		{"{series: {count: 1}}", []string{`series.count: Invalid value: "": should be at least 2`, "series.lastObservedTime: Required value"}},
		{"{regarding: {namespace: ''}}", []string{elsewhere}},
	} {
		expect(t, c.text, validate(parse[v1.Event](t, event, c.text)), c.want)
	}
}

func TestEventUpdate(t *testing.T) {
	const fixed = "field is immutable"
	for _, c := range []struct {
		old, text string
		want      []string
	}{
		{"{}", "{}", nil},
		{"{}", "{series: {count: 2, lastObservedTime: '2026-01-02T03:04:06.000006Z'}}", nil},
		{"{}", "{series: {count: 1, lastObservedTime: '2026-01-02T03:04:06.000006Z'}}", []string{`series.count: Invalid value: "": should be at least 2`}},
		// What was stored by the core group's rules stays.
		{"{series: {count: 1}}", "{series: {count: 1}, metadata: {labels: {a: b}}}", nil},
		{"{}", "{note: new, type: Warning, reason: q}", []string{
			`message: Invalid value: "new": ` + fixed, `type: Invalid value: "Warning": ` + fixed, `reason: Invalid value: "q": ` + fixed}},
		{"{}", "{eventTime: '2026-01-02T03:04:05.000007Z', deprecatedCount: 2}", []string{
			`eventTime: Invalid value: "2026-01-02T03:04:05.000007Z": ` + fixed, "count: Invalid value: 2: " + fixed}},
	} {
		expect(t, c.text, validateUpdate(parse[v1.Event](t, event, c.text), parse[v1.Event](t, event, c.old)), c.want)
	}
}
