package externalgrpc

import "fmt"

// service is the service's name; a method is at "/" + service + "/" + name.
const service = "clusterautoscaler.cloudprovider.v1.externalgrpc.CloudProvider"

// NodeGroup is a group as the provider reports it.
type NodeGroup struct {
	ID      string `protobuf:"bytes,1,opt,name=id,proto3"`
	MinSize int32  `protobuf:"varint,2,opt,name=minSize,proto3"`
	MaxSize int32  `protobuf:"varint,3,opt,name=maxSize,proto3"`
	Debug   string `protobuf:"bytes,4,opt,name=debug,proto3"`
}

// Node names a node.
type Node struct {
	ProviderID  string            `protobuf:"bytes,1,opt,name=providerID,proto3"`
	Name        string            `protobuf:"bytes,2,opt,name=name,proto3"`
	Labels      map[string]string `protobuf:"bytes,3,rep,name=labels,proto3" protobuf_key:"bytes,1,opt,name=key,proto3" protobuf_val:"bytes,2,opt,name=value,proto3"`
	Annotations map[string]string `protobuf:"bytes,4,rep,name=annotations,proto3" protobuf_key:"bytes,1,opt,name=key,proto3" protobuf_val:"bytes,2,opt,name=value,proto3"`
}

// Empty is each message without fields.
type Empty struct{}

// NodeGroupsResponse answers NodeGroups.
type NodeGroupsResponse struct {
	NodeGroups []*NodeGroup `protobuf:"bytes,1,rep,name=nodeGroups,proto3"`
}

// NodeGroupForNodeRequest asks for the group of a node.
type NodeGroupForNodeRequest struct {
	Node *Node `protobuf:"bytes,1,opt,name=node,proto3"`
}

// NodeGroupForNodeResponse answers NodeGroupForNode; an empty ID is no group.
type NodeGroupForNodeResponse struct {
	NodeGroup *NodeGroup `protobuf:"bytes,1,opt,name=nodeGroup,proto3"`
}

// GroupRequest is each message that names a group only: of NodeGroupTargetSize,
// NodeGroupNodes and NodeGroupTemplateNodeInfo.
type GroupRequest struct {
	ID string `protobuf:"bytes,1,opt,name=id,proto3"`
}

// TargetSizeResponse answers NodeGroupTargetSize.
type TargetSizeResponse struct {
	TargetSize int32 `protobuf:"varint,1,opt,name=targetSize,proto3"`
}

// DeltaRequest is of NodeGroupIncreaseSize, and of NodeGroupDecreaseTargetSize, where
// Delta is below 0.
type DeltaRequest struct {
	Delta int32  `protobuf:"varint,1,opt,name=delta,proto3"`
	ID    string `protobuf:"bytes,2,opt,name=id,proto3"`
}

// DeleteNodesRequest is of NodeGroupDeleteNodes.
type DeleteNodesRequest struct {
	Nodes []*Node `protobuf:"bytes,1,rep,name=nodes,proto3"`
	ID    string  `protobuf:"bytes,2,opt,name=id,proto3"`
}

// NodesResponse answers NodeGroupNodes.
type NodesResponse struct {
	Instances []*Instance `protobuf:"bytes,1,rep,name=instances,proto3"`
}

// Instance is a machine of a group.
type Instance struct {
	ID     string          `protobuf:"bytes,1,opt,name=id,proto3"`
	Status *InstanceStatus `protobuf:"bytes,2,opt,name=status,proto3"`
}

// InstanceStatus has a State of package nodegroup, and an error whose code is empty where
// there is none.
type InstanceStatus struct {
	State int32              `protobuf:"varint,1,opt,name=instanceState,proto3"`
	Error *InstanceErrorInfo `protobuf:"bytes,2,opt,name=errorInfo,proto3"`
}

// InstanceErrorInfo tells why an instance cannot be made; Class is a Class of package
// nodegroup.
type InstanceErrorInfo struct {
	Code    string `protobuf:"bytes,1,opt,name=errorCode,proto3"`
	Message string `protobuf:"bytes,2,opt,name=errorMessage,proto3"`
	Class   int32  `protobuf:"varint,3,opt,name=instanceErrorClass,proto3"`
}

// TemplateResponse answers NodeGroupTemplateNodeInfo with a v1.Node in protobuf.
type TemplateResponse struct {
	NodeBytes []byte `protobuf:"bytes,2,opt,name=nodeBytes,proto3"`
}

// Duration is google.protobuf.Duration.
type Duration struct {
	Seconds int64 `protobuf:"varint,1,opt,name=seconds,proto3"`
	Nanos   int32 `protobuf:"varint,2,opt,name=nanos,proto3"`
}

// AutoscalingOptions holds the options of the autoscaler that may differ between
// groups.
type AutoscalingOptions struct {
	ScaleDownUtilizationThreshold float64   `protobuf:"fixed64,1,opt,name=scaleDownUtilizationThreshold,proto3"`
	ScaleDownUnneededDuration     *Duration `protobuf:"bytes,8,opt,name=scaleDownUnneededDuration,proto3"`
	ScaleDownUnreadyDuration      *Duration `protobuf:"bytes,9,opt,name=scaleDownUnreadyDuration,proto3"`
	MaxNodeProvisionDuration      *Duration `protobuf:"bytes,10,opt,name=MaxNodeProvisionDuration,proto3"`
	MaxNodeStartupDuration        *Duration `protobuf:"bytes,11,opt,name=maxNodeStartupDuration,proto3"`
}

// OptionsRequest is of NodeGroupGetOptions.
type OptionsRequest struct {
	ID       string              `protobuf:"bytes,1,opt,name=id,proto3"`
	Defaults *AutoscalingOptions `protobuf:"bytes,2,opt,name=defaults,proto3"`
}

// OptionsResponse answers NodeGroupGetOptions.
type OptionsResponse struct {
	Options *AutoscalingOptions `protobuf:"bytes,1,opt,name=nodeGroupAutoscalingOptions,proto3"`
}

// What protobuf's library asks of a message.

// Reset empties the message.
func (m *NodeGroup) Reset() { *m = NodeGroup{} }

// String shows the message.
func (m *NodeGroup) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*NodeGroup) ProtoMessage() {}

// Reset empties the message.
func (m *Node) Reset() { *m = Node{} }

// String shows the message.
func (m *Node) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*Node) ProtoMessage() {}

// Reset empties the message.
func (m *Empty) Reset() { *m = Empty{} }

// String shows the message.
func (m *Empty) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*Empty) ProtoMessage() {}

// Reset empties the message.
func (m *NodeGroupsResponse) Reset() { *m = NodeGroupsResponse{} }

// String shows the message.
func (m *NodeGroupsResponse) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*NodeGroupsResponse) ProtoMessage() {}

// Reset empties the message.
func (m *NodeGroupForNodeRequest) Reset() { *m = NodeGroupForNodeRequest{} }

// String shows the message.
func (m *NodeGroupForNodeRequest) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*NodeGroupForNodeRequest) ProtoMessage() {}

// Reset empties the message.
func (m *NodeGroupForNodeResponse) Reset() { *m = NodeGroupForNodeResponse{} }

// String shows the message.
func (m *NodeGroupForNodeResponse) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*NodeGroupForNodeResponse) ProtoMessage() {}

// Reset empties the message.
func (m *GroupRequest) Reset() { *m = GroupRequest{} }

// String shows the message.
func (m *GroupRequest) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*GroupRequest) ProtoMessage() {}

// Reset empties the message.
func (m *TargetSizeResponse) Reset() { *m = TargetSizeResponse{} }

// String shows the message.
func (m *TargetSizeResponse) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*TargetSizeResponse) ProtoMessage() {}

// Reset empties the message.
func (m *DeltaRequest) Reset() { *m = DeltaRequest{} }

// String shows the message.
func (m *DeltaRequest) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*DeltaRequest) ProtoMessage() {}

// Reset empties the message.
func (m *DeleteNodesRequest) Reset() { *m = DeleteNodesRequest{} }

// String shows the message.
func (m *DeleteNodesRequest) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*DeleteNodesRequest) ProtoMessage() {}

// Reset empties the message.
func (m *TemplateResponse) Reset() { *m = TemplateResponse{} }

// String shows the message.
func (m *TemplateResponse) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*TemplateResponse) ProtoMessage() {}

// Reset empties the message.
func (m *Duration) Reset() { *m = Duration{} }

// String shows the message.
func (m *Duration) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*Duration) ProtoMessage() {}

// Reset empties the message.
func (m *AutoscalingOptions) Reset() { *m = AutoscalingOptions{} }

// String shows the message.
func (m *AutoscalingOptions) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*AutoscalingOptions) ProtoMessage() {}

// Reset empties the message.
func (m *OptionsRequest) Reset() { *m = OptionsRequest{} }

// String shows the message.
func (m *OptionsRequest) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*OptionsRequest) ProtoMessage() {}

// Reset empties the message.
func (m *OptionsResponse) Reset() { *m = OptionsResponse{} }

// String shows the message.
func (m *OptionsResponse) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*OptionsResponse) ProtoMessage() {}

// Reset empties the message.
func (m *NodesResponse) Reset() { *m = NodesResponse{} }

// String shows the message.
func (m *NodesResponse) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*NodesResponse) ProtoMessage() {}

// Reset empties the message.
func (m *Instance) Reset() { *m = Instance{} }

// String shows the message.
func (m *Instance) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*Instance) ProtoMessage() {}

// Reset empties the message.
func (m *InstanceStatus) Reset() { *m = InstanceStatus{} }

// String shows the message.
func (m *InstanceStatus) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*InstanceStatus) ProtoMessage() {}

// Reset empties the message.
func (m *InstanceErrorInfo) Reset() { *m = InstanceErrorInfo{} }

// String shows the message.
func (m *InstanceErrorInfo) String() string { return fmt.Sprintf("%+v", *m) }

// ProtoMessage marks a message.
func (*InstanceErrorInfo) ProtoMessage() {}
