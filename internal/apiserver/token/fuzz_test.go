package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"
)

// FuzzReview reviews tokens made by changing an issued one: none of them
// identifies a user.
func FuzzReview(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	o := &objects{sa: &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "sa", UID: "1"}}}
	a, err := New(key, Selection{}, o, testingclock.NewFakeClock(time.Unix(1_800_000_000, 0)))
	if err != nil {
		f.Fatal(err)
	}
	tr := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: a.Audiences(), ExpirationSeconds: new(int64(3600))}}
	if err := a.Request(f.Context(), o.sa, tr); err != nil {
		f.Fatal(err)
	}
	issued := tr.Status.Token
	parts := strings.Split(issued, ".")
	none := "eyJhbGciOiJub25lIn0" // {"alg":"none"}
	for _, token := range []string{"", "..", "a.b.c", none + "." + parts[1] + ".", none + "." + parts[1] + "." + parts[2], "$0.$1.", "$0.e30.$2", "$0.$1.$2.", "eyJhbGciOiJIUzI1NiJ9.$1.AA"} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		for i, p := range []string{"$0", "$1", "$2"} {
			token = strings.ReplaceAll(token, p, parts[i])
		}
		u, _, ok, err := a.Review(t.Context(), token, nil)
		// Base64 has bits at the end that say nothing, and JWTs in them are the same.
		same := len(token) == len(issued) && token[:len(token)-1] == issued[:len(issued)-1]
		if ok && !same {
			t.Errorf("%q is %v's: %v", token, u, err)
		}
		if !ok && token == issued {
			t.Errorf("the issued token is refused: %v", err)
		}
	})
}
