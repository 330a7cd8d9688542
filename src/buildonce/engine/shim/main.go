// The shim is what runs first in a container and what runs the user's command there. It is one
// static binary without dependencies, mounted read-only, so it works in any image, an empty one too.
//
//	shim                        run what the variable _BUILDONCE_EXEC describes (see exec.go)
//	shim connect HOST:PORT|/SOCKET
//	                            join stdin and stdout to a connection
//	shim wait [--timeout 60s] PORT[/tcp|/udp]...
//	                            return when something listens on every port
//	shim read FILE...           print each file's size in a line (-1: not there), then its bytes
//	shim glob|digest|search|stat|ignores SETTINGS
//	                            answer a question about a tree (see inspect.go)
//	shim check                  as without arguments, then print the exit code and end with 0: the
//	                            daemon ends a whole container when a process in it fails
//	shim address                print the address by which other containers reach this one
//	shim relay                  do nothing until ended, for an exec that is only relays
//
// Outside of containers it makes a network for those of a daemon that is not root: see hub.go, cni.go.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// What the shim itself ends with when it, and not the command, has failed.
const failed = 125

func main() {
	if plug, known := plugins[filepath.Base(os.Args[0])]; known {
		os.Exit(cni(plug))
	}
	if len(os.Args) < 2 {
		os.Exit(runSpecified())
	}
	if _, known := questions[os.Args[1]]; known && len(os.Args) == 3 {
		os.Exit(inspect(os.Args[1], os.Args[2]))
	}
	var err error
	switch mode, args := os.Args[1], os.Args[2:]; mode {
	case "connect":
		err = connect(args)
	case "wait":
		err = waitForPorts(args)
	case "read":
		err = readFiles(args)
	case "check":
		err = check()
	case "address":
		err = address()
	case "hub":
		err = hub(args)
	case "hub-relay":
		err = hubRelay(args)
	case "hub-probe":
		err = hubProbe(args)
	case "relay":
		for {
			time.Sleep(time.Hour)
		}
	default:
		err = fmt.Errorf("unknown mode %q", mode)
	}
	if err != nil {
		complain(err)
		os.Exit(failed)
	}
}

func complain(err error) {
	fmt.Fprintln(os.Stderr, "buildonce:", err)
}
