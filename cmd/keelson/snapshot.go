package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"keelson.dev/keelson/internal/apiserver/history"
	"keelson.dev/keelson/internal/store/embedded"
	"keelson.dev/keelson/internal/store/snapshot"
)

// snapshotSuffix ends the names of snapshots' files.
const snapshotSuffix = ".snapshot"

func snapshotCommand() *cobra.Command {
	c := &cobra.Command{Use: "snapshot", Short: "Save, list and restore snapshots of all objects of a cluster"}
	c.AddCommand(snapshotSaveCommand(), snapshotListCommand(), snapshotRestoreCommand())
	return c
}

func snapshotSaveCommand() *cobra.Command {
	var at string
	c := &cobra.Command{
		Use:   "save [FILE]",
		Short: "Save all objects of a running cluster",
		Long: "Save all objects of a running cluster, as they are at one revision, in a file with a checksum. Objects that are\n" +
			"encrypted at rest are so in the file; it is as secret as the store. Certificates are not in it: keep the folder pki\n" +
			"of the data folder beside it.",
		Example: "  keelson snapshot save before.snapshot\n  keelson snapshot save --at 10m",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cs, _, err := client()
			if err != nil {
				return err
			}
			r := cs.Discovery().RESTClient().Get().AbsPath(history.SnapshotPath)
			if at != "" {
				r = r.Param("at", at)
			}
			stream, err := r.Stream(c.Context())
			if err != nil {
				return err
			}
			defer stream.Close()
			name := "keelson-" + time.Now().UTC().Format("20060102-150405") + snapshotSuffix
			if len(args) == 1 {
				name = args[0]
			}
			h, err := saveSnapshot(name, stream)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: %d objects at revision %d\n", name, h.Objects, h.Revision)
			return nil
		},
	}
	c.Flags().StringVar(&at, "at", "", "save the objects as they were: how long ago (10m), a time (2006-01-02T15:04:05Z) or a resourceVersion")
	return c
}

// saveSnapshot writes a snapshot to a new file, and checks it on the way. The file is
// there only if it is whole.
func saveSnapshot(name string, from io.Reader) (h snapshot.Header, err error) {
	if _, err := os.Lstat(name); err == nil {
		return h, fmt.Errorf("%s exists: give another name, or remove it first", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*") // of mode 0600
	if err != nil {
		return h, err
	}
	defer func() {
		f.Close()
		os.Remove(f.Name()) //nolint:errcheck // it is there only after an error
	}()
	if h, err = snapshot.Read(io.TeeReader(from, f), func(snapshot.Record) error { return nil }); err != nil {
		return h, err
	}
	if _, err := io.Copy(f, from); err != nil { // what the decoder has not asked for
		return h, err
	}
	if err := f.Sync(); err != nil {
		return h, err
	}
	return h, os.Rename(f.Name(), name)
}

func snapshotListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list [FOLDER|FILE]...",
		Short: "List snapshots, and check that they are whole",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"."}
			}
			var files []string
			for _, a := range args {
				if info, err := os.Stat(a); err != nil {
					return err
				} else if !info.IsDir() {
					files = append(files, a)
					continue
				}
				found, err := filepath.Glob(filepath.Join(a, "*"+snapshotSuffix))
				if err != nil {
					return err
				}
				files = append(files, found...)
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 8, 3, ' ', 0)
			fmt.Fprintln(w, "FILE\tTIME\tREVISION\tOBJECTS\tBYTES\tCHECK")
			var failed error
			for _, name := range files {
				h, size, err := checkSnapshot(name)
				state := "whole"
				if err != nil {
					state, failed = strings.ReplaceAll(err.Error(), "\n", ": "), errors.New("not all snapshots are whole")
				}
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\n", name, h.Time.Format(time.RFC3339), h.Revision, h.Objects, size, state)
			}
			return errors.Join(w.Flush(), failed)
		},
	}
}

// checkSnapshot reads all of a snapshot's file.
func checkSnapshot(name string) (h snapshot.Header, size int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return h, 0, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		size = info.Size()
	}
	h, err = snapshot.Read(f, func(snapshot.Record) error { return nil })
	return h, size, err
}

func snapshotRestoreCommand() *cobra.Command {
	var dataDir string
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the store of a cluster that is stopped of a snapshot",
		Long: "Make the store of a cluster that is stopped of a snapshot. A store that is there is kept beside it, under another\n" +
			"name. Revisions go on far after those that clients have seen, so that they read everything again.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			release, err := serverInstance.claim(dataDir) // no server runs, and none starts meanwhile
			if err != nil {
				return err
			}
			defer release()
			dir := filepath.Join(dataDir, "store")
			restored := dir + ".restored"
			if err := os.RemoveAll(restored); err != nil {
				return err
			}
			h, err := embedded.Restore(restored, f)
			if err != nil {
				return err
			}
			if old, err := moveAway(dir); err != nil {
				return errors.Join(err, os.RemoveAll(restored))
			} else if old != "" {
				fmt.Fprintf(c.OutOrStdout(), "the store that was there is now %s\n", old)
			}
			if err := os.Rename(restored, dir); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "restored %d objects of %s into %s: start the cluster again\n", h.Objects, h.Time.Format(time.RFC3339), dir)
			return nil
		},
	}
	c.Flags().StringVar(&dataDir, "data-dir", defaultDataDir, "the cluster's folder")
	return c
}

// moveAway gives the store in dir another name, and returns it; "" where there is none.
func moveAway(dir string) (string, error) {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	old := dir + ".before-" + time.Now().UTC().Format("20060102-150405")
	return old, os.Rename(dir, old)
}
