// Package beneath opens and walks what is in a folder that the containers of pods may change
// meanwhile. No link leads out of the folder, and only regular files and folders are ever opened: a
// pipe, whose writer the agent would wait for, or a device, whose driver would act, may have been put
// in the place of any file. It imports nothing of the agent.
package beneath
