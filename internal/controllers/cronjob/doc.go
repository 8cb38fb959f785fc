// Package cronjob makes Jobs at the times of CronJobs' schedules, and deletes
// those that have finished and are more than the history is to have.
package cronjob
