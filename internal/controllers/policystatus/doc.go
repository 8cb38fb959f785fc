// Package policystatus checks the expressions of ValidatingAdmissionPolicies
// against the types that they are about, and says in their status what is
// wrong. Admission does not wait for it.
package policystatus
