package ttlafterfinished

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/controllers/controllertest"
)

func TestExpiry(t *testing.T) {
	for _, c := range []struct {
		name     string
		ttl      *int32
		finished batch.JobConditionType
		extended int32 // after 5 s
		want     time.Duration
	}{
		{"complete", ptr.To[int32](10), batch.JobComplete, 0, 10 * time.Second},
		{"failed", ptr.To[int32](10), batch.JobFailed, 0, 10 * time.Second},
		{"at once", ptr.To[int32](0), batch.JobComplete, 0, 0},
		{"extended", ptr.To[int32](10), batch.JobComplete, 60, 60 * time.Second},
		{"not finished", ptr.To[int32](10), batch.JobSuspended, 0, -1},
		{"without a time to live", nil, batch.JobComplete, 0, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				cl := controllertest.New(t, New)
				jobs := cl.Client.BatchV1().Jobs("ns")
				begin := time.Now()
				j := &batch.Job{ObjectMeta: metav1.ObjectMeta{Name: "j"}, Spec: batch.JobSpec{TTLSecondsAfterFinished: c.ttl},
					Status: batch.JobStatus{Conditions: []batch.JobCondition{{Type: c.finished, Status: v1.ConditionTrue, LastTransitionTime: metav1.Now()}}}}
				controllertest.Must[*batch.Job](t)(jobs.Create(ctx, j, metav1.CreateOptions{}))
				gone := time.Duration(-1)
				for range 300 {
					cl.Advance(0)
					got, err := jobs.Get(ctx, "j", metav1.GetOptions{})
					if apierrors.IsNotFound(err) || err == nil && got.DeletionTimestamp != nil {
						gone = time.Since(begin)
						break
					}
					if c.extended > 0 && time.Since(begin) == 5*time.Second {
						got.Spec.TTLSecondsAfterFinished = &c.extended
						controllertest.Must[*batch.Job](t)(jobs.Update(ctx, got, metav1.UpdateOptions{}))
					}
					cl.Advance(500 * time.Millisecond)
				}
				if gone != c.want {
					t.Errorf("deleted after %v, want %v", gone, c.want)
				}
			})
		})
	}
}
