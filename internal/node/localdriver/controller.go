package localdriver

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// defaultBytes is the size of a volume without a requested size.
const defaultBytes = 1 << 30

// failed returns the answer for an error of the file system.
func failed(err error) error {
	if noSpace(err) {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}

// ControllerGetCapabilities implements csi.ControllerServer.
func (d *Driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	out := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY, csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS, csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME, csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		out.Capabilities = append(out.Capabilities, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}}})
	}
	return out, nil
}

// modes are the access modes that a volume of one node supports.
var modes = []csi.VolumeCapability_AccessMode_Mode{
	csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER, csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
}

// block reports whether a block volume is requested. why is the reason if the
// capabilities are not supported, else empty.
func block(all []*csi.VolumeCapability) (block bool, why string) {
	mount := false
	for _, c := range all {
		if c.GetBlock() != nil {
			block = true
		} else {
			mount = true
		}
		if m := c.GetAccessMode().GetMode(); !slices.Contains(modes, m) {
			return false, "a volume of this driver is of one node, and cannot give the access mode " + m.String()
		}
	}
	if block && mount {
		return false, "a volume is either a device or a folder"
	}
	return block, ""
}

func (d *Driver) volume(id string, i *item) *csi.Volume {
	out := &csi.Volume{VolumeId: id, CapacityBytes: i.Bytes, AccessibleTopology: []*csi.Topology{{Segments: map[string]string{Topology: d.Node}}}}
	switch {
	case i.Snapshot != "":
		out.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: i.Snapshot}}}
	case i.Volume != "":
		out.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: i.Volume}}}
	}
	return out
}

// CreateVolume implements csi.ControllerServer.
func (d *Driver) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if r.Name == "" {
		return nil, status.Error(codes.InvalidArgument, "a volume needs a name")
	}
	if len(r.VolumeCapabilities) == 0 {
		return nil, status.Error(codes.InvalidArgument, "a volume needs capabilities")
	}
	isBlock, why := block(r.VolumeCapabilities)
	if why != "" {
		return nil, status.Error(codes.InvalidArgument, why)
	}
	for name := range r.Parameters {
		return nil, status.Errorf(codes.InvalidArgument, "unknown parameter %q: this driver has none", name)
	}
	if t := r.AccessibilityRequirements; t != nil && len(t.Requisite) > 0 && !slices.ContainsFunc(t.Requisite, func(t *csi.Topology) bool { return t.Segments[Topology] == d.Node }) {
		return nil, status.Errorf(codes.ResourceExhausted, "the volume is to be of other nodes than %s, which is this driver's", d.Node)
	}
	need, limit := r.GetCapacityRange().GetRequiredBytes(), r.GetCapacityRange().GetLimitBytes()
	if need < 0 || limit < 0 || limit > 0 && limit < need {
		return nil, status.Errorf(codes.OutOfRange, "no size is at least %d and at most %d bytes", need, limit)
	}
	want := &item{Name: r.Name, Block: isBlock, Bytes: need, Snapshot: r.GetVolumeContentSource().GetSnapshot().GetSnapshotId(), Volume: r.GetVolumeContentSource().GetVolume().GetVolumeId(), Created: d.Clock.Now().UTC()}

	d.mu.Lock()
	defer d.mu.Unlock()
	id := identify(r.Name)
	if err := d.pending(volumes, id); err != nil {
		return nil, err
	}
	have, err := d.read(volumes, id)
	if err != nil {
		return nil, failed(err)
	}
	if have != nil {
		if have.Name != want.Name || have.Block != isBlock || have.Bytes < need || limit > 0 && have.Bytes > limit || have.Snapshot != want.Snapshot || have.Volume != want.Volume {
			return nil, status.Errorf(codes.AlreadyExists, "volume %q exists, and is another one: %d bytes, content of %q", r.Name, have.Bytes, have.Snapshot+have.Volume)
		}
		return &csi.CreateVolumeResponse{Volume: d.volume(id, have)}, nil
	}
	source, from, err := d.source(want)
	if err != nil {
		return nil, err
	}
	if source != nil && want.Bytes < source.Bytes {
		if want.Bytes = source.Bytes; need > 0 {
			return nil, status.Errorf(codes.OutOfRange, "the content has %d bytes, the volume is to have %d", source.Bytes, need)
		}
	}
	total, _, err := space(d.Dir)
	if err != nil {
		return nil, failed(err)
	}
	if want.Bytes == 0 {
		if want.Bytes = min(defaultBytes, total); limit > 0 {
			want.Bytes = min(want.Bytes, limit)
		}
	}
	if limit > 0 && want.Bytes > limit || want.Bytes > total {
		return nil, status.Errorf(codes.OutOfRange, "a volume of %d bytes is wanted; at most %d are possible, and the disk of node %s has %d", want.Bytes, limit, d.Node, total)
	}
	if err := d.create(volumes, id, want, from); err != nil {
		return nil, failed(err)
	}
	return &csi.CreateVolumeResponse{Volume: d.volume(id, want)}, nil
}

// source returns the volume or snapshot whose content is copied, and its folder.
func (d *Driver) source(want *item) (*item, string, error) {
	kind, id := volumes, want.Volume
	if want.Snapshot != "" {
		kind, id = snapshots, want.Snapshot
	}
	if id == "" {
		return nil, "", nil
	}
	from, err := d.read(kind, id)
	switch {
	case err != nil:
		return nil, "", failed(err)
	case from == nil:
		return nil, "", status.Errorf(codes.NotFound, "%q, which the content is to come from, is not one of the %s of node %s", id, kind, d.Node)
	case from.Block != want.Block:
		return nil, "", status.Error(codes.InvalidArgument, "a device cannot have the content of a folder, nor a folder that of a device")
	}
	return from, d.path(kind, id), nil
}

// space returns the size of the disk and its free space, in bytes.
func space(dir string) (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}

// DeleteVolume implements csi.ControllerServer.
func (d *Driver) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if r.VolumeId == "" {
		return nil, status.Error(codes.InvalidArgument, "which volume?")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.pending(volumes, r.VolumeId); err != nil {
		return nil, err
	}
	i, err := d.read(volumes, r.VolumeId)
	if err != nil {
		return nil, failed(err)
	}
	if i != nil {
		if used, err := d.published(r.VolumeId, i); err != nil {
			return nil, failed(err)
		} else if used != "" {
			return nil, status.Errorf(codes.FailedPrecondition, "volume %q is in use at %s", r.VolumeId, used)
		}
	}
	if err := d.remove(volumes, r.VolumeId, i); err != nil {
		return nil, failed(err)
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// ValidateVolumeCapabilities implements csi.ControllerServer.
func (d *Driver) ValidateVolumeCapabilities(_ context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if r.VolumeId == "" || len(r.VolumeCapabilities) == 0 {
		return nil, status.Error(codes.InvalidArgument, "a volume and its capabilities are needed")
	}
	i, err := d.existing(r.VolumeId)
	if err != nil {
		return nil, err
	}
	isBlock, why := block(r.VolumeCapabilities)
	if why == "" && isBlock != i.Block {
		why = "a device is no folder, and a folder no device"
	}
	if why != "" {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: why}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: r.VolumeContext, VolumeCapabilities: r.VolumeCapabilities, Parameters: r.Parameters}}, nil
}

// existing returns a volume, or the error NotFound.
func (d *Driver) existing(id string) (*item, error) {
	i, err := d.read(volumes, id)
	if err != nil {
		return nil, failed(err)
	}
	if i == nil {
		return nil, status.Errorf(codes.NotFound, "node %s has no volume %q", d.Node, id)
	}
	return i, nil
}

// page returns the requested part of a list, and the token of the next part.
func page(all []string, token string, most int32) ([]string, string, error) {
	start := 0
	if token != "" {
		n, err := strconv.Atoi(token)
		if err != nil || n < 0 || n > len(all) {
			return nil, "", status.Errorf(codes.Aborted, "%q is no token of this list: begin anew", token)
		}
		start = n
	}
	end := len(all)
	next := ""
	if most > 0 && start+int(most) < end {
		end = start + int(most)
		next = strconv.Itoa(end)
	}
	return all[start:end], next, nil
}

// ListVolumes implements csi.ControllerServer.
func (d *Driver) ListVolumes(_ context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	all, err := d.list(volumes)
	if err != nil {
		return nil, failed(err)
	}
	ids, next, err := page(all, r.StartingToken, r.MaxEntries)
	if err != nil {
		return nil, err
	}
	out := &csi.ListVolumesResponse{NextToken: next}
	for _, id := range ids {
		i, err := d.read(volumes, id)
		if err != nil {
			return nil, failed(err)
		}
		if i != nil {
			out.Entries = append(out.Entries, &csi.ListVolumesResponse_Entry{Volume: d.volume(id, i)})
		}
	}
	return out, nil
}

// GetCapacity implements csi.ControllerServer: the free space, and the size of
// the disk as the greatest size of a volume.
func (d *Driver) GetCapacity(_ context.Context, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	if t := r.AccessibleTopology; t != nil && t.Segments[Topology] != d.Node {
		return &csi.GetCapacityResponse{}, nil
	}
	total, free, err := space(d.Dir)
	if err != nil {
		return nil, failed(err)
	}
	return &csi.GetCapacityResponse{AvailableCapacity: free, MaximumVolumeSize: wrapperspb.Int64(total)}, nil
}

func (d *Driver) snapshot(id string, i *item) *csi.Snapshot {
	return &csi.Snapshot{SnapshotId: id, SourceVolumeId: i.Volume, SizeBytes: i.Bytes, CreationTime: timestamppb.New(i.Created), ReadyToUse: true}
}

// CreateSnapshot implements csi.ControllerServer. A snapshot copies the files
// one after another: it is consistent only if nothing writes to the volume
// meanwhile.
func (d *Driver) CreateSnapshot(_ context.Context, r *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if r.Name == "" || r.SourceVolumeId == "" {
		return nil, status.Error(codes.InvalidArgument, "a snapshot needs a name and a volume")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	id := identify(r.Name)
	if err := d.pending(snapshots, id); err != nil {
		return nil, err
	}
	have, err := d.read(snapshots, id)
	if err != nil {
		return nil, failed(err)
	}
	if have != nil {
		if have.Volume != r.SourceVolumeId || have.Name != r.Name {
			return nil, status.Errorf(codes.AlreadyExists, "snapshot %q exists, and is of volume %q", r.Name, have.Volume)
		}
		return &csi.CreateSnapshotResponse{Snapshot: d.snapshot(id, have)}, nil
	}
	of, err := d.existing(r.SourceVolumeId)
	if err != nil {
		return nil, err
	}
	i := &item{Name: r.Name, Bytes: of.Bytes, Block: of.Block, Volume: r.SourceVolumeId, Created: d.Clock.Now().UTC().Truncate(time.Microsecond)}
	if err := d.create(snapshots, id, i, d.path(volumes, r.SourceVolumeId)); err != nil {
		return nil, failed(err)
	}
	return &csi.CreateSnapshotResponse{Snapshot: d.snapshot(id, i)}, nil
}

// DeleteSnapshot implements csi.ControllerServer.
func (d *Driver) DeleteSnapshot(_ context.Context, r *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if r.SnapshotId == "" {
		return nil, status.Error(codes.InvalidArgument, "which snapshot?")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.pending(snapshots, r.SnapshotId); err != nil {
		return nil, err
	}
	i, err := d.read(snapshots, r.SnapshotId)
	if err == nil {
		err = d.remove(snapshots, r.SnapshotId, i)
	}
	if err != nil {
		return nil, failed(err)
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

// ListSnapshots implements csi.ControllerServer.
func (d *Driver) ListSnapshots(_ context.Context, r *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	all, err := d.list(snapshots)
	if err != nil {
		return nil, failed(err)
	}
	items := map[string]*item{}
	all = slices.DeleteFunc(all, func(id string) bool {
		i, e := d.read(snapshots, id)
		if e != nil {
			err = e
		}
		items[id] = i
		return i == nil || r.SnapshotId != "" && id != r.SnapshotId || r.SourceVolumeId != "" && i.Volume != r.SourceVolumeId
	})
	if err != nil {
		return nil, failed(err)
	}
	ids, next, err := page(all, r.StartingToken, r.MaxEntries)
	if err != nil {
		return nil, err
	}
	out := &csi.ListSnapshotsResponse{NextToken: next}
	for _, id := range ids {
		out.Entries = append(out.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: d.snapshot(id, items[id])})
	}
	return out, nil
}

// ControllerExpandVolume implements csi.ControllerServer. The volume has its new
// size at once, also in running pods.
func (d *Driver) ControllerExpandVolume(_ context.Context, r *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	if r.VolumeId == "" || r.CapacityRange == nil {
		return nil, status.Error(codes.InvalidArgument, "a volume and its size are needed")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	i, err := d.existing(r.VolumeId)
	if err != nil {
		return nil, err
	}
	size := max(i.Bytes, r.CapacityRange.RequiredBytes)
	total, _, err := space(d.Dir)
	if err != nil {
		return nil, failed(err)
	}
	if limit := r.CapacityRange.LimitBytes; limit > 0 && size > limit || size > total {
		return nil, status.Errorf(codes.OutOfRange, "%d bytes are wanted; at most %d are possible, and the disk of node %s has %d", size, limit, d.Node, total)
	}
	if size > i.Bytes {
		i.Bytes = size
		if err := d.grow(r.VolumeId, i); err != nil {
			return nil, failed(err)
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: i.Bytes}, nil
}

// grow applies the new size of a volume.
func (d *Driver) grow(id string, i *item) error {
	dir := d.path(volumes, id)
	var err error
	if i.Block {
		path := dir + "/" + disk
		if err = makeDisk(path, i.Bytes, ""); err == nil {
			err = refreshLoop(path)
		}
	} else {
		err = d.quota.limit(dir+"/"+data, i.Project, i.Bytes)
	}
	if err != nil {
		return err
	}
	return d.write(volumes, id, i)
}
