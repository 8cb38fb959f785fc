package imageload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/images/v1"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"keelson.dev/keelson/internal/node/cri"
)

// known is how long the runtime may take to know an image by its new name.
const known = 10 * time.Second

// managed marks containerd's images that its CRI shows.
var managed = map[string]string{"io.cri-containerd.image": "managed"}

// Load gives the images of an archive to the runtime, calls done with the name of each
// that it has, and returns when it has all.
func Load(ctx context.Context, runtime *cri.Client, archive io.Reader, done func(name string)) error {
	if runtime.RuntimeName != "containerd" {
		return fmt.Errorf("the runtime is %s: images can be loaded into containerd only, so push them to a registry that this node can reach", runtime.RuntimeName)
	}
	dir, err := os.MkdirTemp("", "keelson-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file, err := spool(archive, dir)
	if err != nil {
		return fmt.Errorf("reading the archive: %w", err)
	}
	all, err := read(file, dir)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(registry.NewDiskBlobHandler(dir))), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	for _, n := range all {
		if err := give(ctx, runtime, l.Addr().String(), n); err != nil {
			return fmt.Errorf("image %s: %w", Name(n.tag), err)
		}
		done(Name(n.tag))
	}
	return nil
}

// Name returns the name of an image as CRI has it.
func Name(t name.Tag) string {
	host := t.RegistryStr()
	if host == name.DefaultRegistry {
		host = "docker.io"
	}
	return host + "/" + t.RepositoryStr() + ":" + t.TagStr()
}

// give makes the runtime pull an image from the registry at addr, and know it by
// its own name.
func give(ctx context.Context, runtime *cri.Client, addr string, n named) error {
	local, err := name.NewTag(addr + "/" + n.tag.RepositoryStr() + ":" + n.tag.TagStr())
	if err != nil {
		return err
	}
	if err := remote.Write(local, n.image, remote.WithContext(ctx)); err != nil {
		return err
	}
	pulled, err := runtime.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: local.String()}})
	if err != nil {
		return err
	}
	own := metadata.AppendToOutgoingContext(ctx, "containerd-namespace", "k8s.io")
	client := images.NewImagesClient(runtime.Conn())
	got, err := client.Get(own, &images.GetImageRequest{Name: local.String()})
	if err != nil {
		return err
	}
	image := &images.Image{Name: Name(n.tag), Target: got.Image.Target, Labels: managed}
	_, err = client.Create(own, &images.CreateImageRequest{Image: image})
	if status.Code(err) == codes.AlreadyExists {
		_, err = client.Update(own, &images.UpdateImageRequest{Image: image})
	}
	if err != nil {
		return err
	}
	if err := await(ctx, runtime, Name(n.tag), pulled.ImageRef); err != nil {
		return err
	}
	// The names of the registry that ends now.
	repository, _, _ := strings.Cut(local.String(), ":"+n.tag.TagStr())
	list, err := client.List(own, &images.ListImagesRequest{})
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range list.Images {
		if i.Name == local.String() || strings.HasPrefix(i.Name, repository+"@") {
			if _, err := client.Delete(own, &images.DeleteImageRequest{Name: i.Name}); status.Code(err) != codes.NotFound {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// await returns when CRI knows the image by the name: it hears of names that it has
// not given itself by containerd's events.
func await(ctx context.Context, runtime *cri.Client, name, id string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, known, fmt.Errorf("the runtime has pulled it, but does not know it by this name after %s", known))
	defer cancel()
	for {
		r, err := runtime.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
		if err == nil && r.Image != nil && r.Image.Id == id {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
