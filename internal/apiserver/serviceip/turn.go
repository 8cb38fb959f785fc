package serviceip

import (
	"keelson.dev/keelson/internal/component"

	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/utils/ptr"

	"keelson.dev/keelson/internal/store"
)

// turnTime is how long a turn may take at most.
const turnTime = 15 * time.Second

// Reserve implements apiserver.Reservation. Where several servers give out Services'
// node ports they do so one at a time, by what the Services hold then. The turn is a
// Lease that etcd takes away from a server that died in its turn. Addresses need no
// turn: each is an object.
func (k *Keeper) Reserve(ctx context.Context, obj, old runtime.Object, dryRun bool) (func(bool), error) {
	var was *v1.Service
	if old != nil {
		was = old.(*v1.Service)
	}
	if s := obj.(*v1.Service); !k.Shared || !Ports(s, was) || was != nil && equality.Semantic.DeepEqual(s.Spec, was.Spec) {
		return k.Allocator.Reserve(ctx, obj, old, dryRun)
	}
	k.turn.Lock()
	turn, err := k.begin(ctx)
	if err != nil {
		k.turn.Unlock()
		return nil, fmt.Errorf("waiting for other servers to allocate addresses of Services: %w", err)
	}
	end := func() {
		_, _ = k.Store.Delete(context.WithoutCancel(ctx), turn.Key, turn.ModRevision)
		k.turn.Unlock()
	}
	services, err := k.objects.services(ctx)
	if err != nil {
		end()
		return nil, err
	}
	k.Reset(services)
	done, err := k.Allocator.Reserve(ctx, obj, old, dryRun)
	if err != nil {
		end()
		return nil, err
	}
	return func(committed bool) {
		done(committed)
		end()
	}, nil
}

// begin waits for this server's turn.
func (k *Keeper) begin(ctx context.Context) (*store.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*turnTime)
	defer cancel()
	key := k.Catalogue.Must("coordination.k8s.io", "v1", "leases").Key(metav1.NamespaceSystem, "service-allocation")
	w, err := k.Store.Watch(key, store.WatchOptions{})
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	for {
		now := k.Clock.Now()
		turn, err := k.Store.Create(ctx, key, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "service-allocation", UID: uuid.NewUUID(),
				CreationTimestamp: metav1.Time{Time: now.UTC().Truncate(time.Second)}},
			Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To(component.Hostname()), LeaseDurationSeconds: ptr.To(int32(turnTime / time.Second)),
				AcquireTime: &metav1.MicroTime{Time: now}},
		}, turnTime)
		if !errors.Is(err, store.ErrExists) {
			return turn, err
		}
		for taken := true; taken; {
			events, err := w.Next(ctx)
			if err != nil {
				return nil, err
			}
			taken = events[len(events)-1].Type != store.Delete
		}
	}
}
