// Package persistentvolume binds PersistentVolumeClaims to PersistentVolumes, asks
// external provisioners for volumes that are missing, and reclaims volumes whose
// claims are gone
// (https://kubernetes.io/docs/concepts/storage/persistent-volumes/).
//
// A binding is four writes: the volume's claimRef, its phase, the claim's
// volumeName, its phase. The controller may be killed between any two of them:
// each reconciliation of a claim or of a volume takes the next one.
package persistentvolume
