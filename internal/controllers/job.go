package controllers

import (
	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
)

// JobEnd returns the condition by which a Job is over, Complete or Failed, and nil
// while it is not.
func JobEnd(j *batch.Job) *batch.JobCondition {
	for i := range j.Status.Conditions {
		if c := &j.Status.Conditions[i]; (c.Type == batch.JobComplete || c.Type == batch.JobFailed) && c.Status == v1.ConditionTrue {
			return c
		}
	}
	return nil
}
