package objectjson

import "testing"

func TestRevisionPlace(t *testing.T) {
	const rv = `"resourceVersion":"7",`
	for in, want := range map[string]string{
		`{"kind":"A","metadata":{"name":"x","uid":"u"},"spec":{"metadata":{"uid":1}}}`: `{"kind":"A","metadata":{"name":"x",` + rv + `"uid":"u"},"spec":{"metadata":{"uid":1}}}`,
		`{"metadata":{"uid":"u"}}`: `{"metadata":{` + rv + `"uid":"u"}}`,
		`{"metadata":{"labels":{"z":"\"}{"},"m":[{"a":[1,2.5e3,true,null]}],"uid":"é"}}`: `{"metadata":{"labels":{"z":"\"}{"},"m":[{"a":[1,2.5e3,true,null]}],` + rv + `"uid":"é"}}`,
		"{\"metadata\":{\"selfLink\":\"\", \"uid\":\"u\"}}\n":                            "{\"metadata\":{" + rv + "\"selfLink\":\"\", \"uid\":\"u\"}}\n",
		`{"metadata":{"name":"x"}}`:                                                      "",
		`{"metadata":{"resourceVersion":"1","uid":"u"}}`:                                 "",
		`{"metadata":{"uid":"u","resourceVersion":"1"}}`:                                 "",
		`{"metadata":{"uid":"u"},"metadata":{"uid":"u"}}`:                                "",
		`{"metadata":{"uid":"u"},"spec":{"a":01}}`:                                       "",
		`{"metadata":{"uid":"u"},"spec":"` + "\xff" + `"}`:                               "",
		`{"metadata":{"uid":"u"},"spec":"\x"}`:                                           "",
		`{"metadata":{"uid":"u"}`:                                                        "",
		`{"metadata":{"uid":"u"}}}`:                                                      "",
		`{"metadata":{"uid":"u"},}`:                                                      "",
		`{"metadata":{"uid":"u","labels":{}}}`:                                           "",
		`{"metadata":{"labels":{},"labels":{},"uid":"u"}}`:                               "",
		`{"metadata":{"\u006cabels":{},"uid":"u"}}`:                                      "",
		`{"metadata":["uid"]}`:                                                           "",
		`{"spec":{"uid":"u"}}`:                                                           "",
		`k8s`:                                                                            "",
	} {
		at, ok := RevisionPlace([]byte(in))
		if ok != (want != "") {
			t.Errorf("%s: %v", in, ok)
		} else if ok && in[:at]+rv+in[at:] != want {
			t.Errorf("%s: %s", in, in[:at]+rv+in[at:])
		}
	}
}
