package stats

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// blockIO is what a cgroup has read from and written to a device.
type blockIO struct {
	major, minor, device                 string // device is its path, "" if it has none
	readBytes, writeBytes, reads, writes uint64
}

// blockIO returns that of each device, by the numbers of the devices.
func (c cgroups) blockIO(path string) (out []blockIO) {
	at := map[string]int{}
	of := func(numbers string) *blockIO {
		i, ok := at[numbers]
		if !ok {
			major, minor, _ := strings.Cut(numbers, ":")
			i = len(out)
			at[numbers], out = i, append(out, blockIO{major: major, minor: minor, device: device(numbers)})
		}
		return &out[i]
	}
	if c.v2 {
		text, _ := c.read("", path, "io.stat")
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) < 2 || !strings.Contains(f[0], ":") {
				continue
			}
			d := of(f[0])
			for _, v := range f[1:] {
				name, value, _ := strings.Cut(v, "=")
				n, _ := strconv.ParseUint(value, 10, 64)
				switch name {
				case "rbytes":
					d.readBytes = n
				case "wbytes":
					d.writeBytes = n
				case "rios":
					d.reads = n
				case "wios":
					d.writes = n
				}
			}
		}
		return out
	}
	for _, file := range []string{"blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"} {
		text, _ := c.read("blkio", path, file)
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) != 3 {
				continue // the sum of all devices
			}
			d := of(f[0])
			n, _ := strconv.ParseUint(f[2], 10, 64)
			switch bytes := strings.Contains(file, "bytes"); {
			case f[1] == "Read" && bytes:
				d.readBytes = n
			case f[1] == "Read":
				d.reads = n
			case f[1] == "Write" && bytes:
				d.writeBytes = n
			case f[1] == "Write":
				d.writes = n
			}
		}
	}
	return out
}

// device returns the path of a device, by its numbers.
func device(numbers string) string {
	to, err := os.Readlink(filepath.Join("/sys/dev/block", numbers))
	if err != nil {
		return ""
	}
	return "/dev/" + filepath.Base(to)
}
