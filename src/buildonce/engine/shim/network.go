package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// relay hands connections to a port of the container's loopback on to a unix socket.
type relay struct {
	Listen string `json:"listen"`
	Socket string `json:"socket"`
}

func (r relay) serve() error {
	listener, err := net.Listen("tcp", r.Listen)
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer near.Close()
				far, err := net.Dial("unix", r.Socket)
				if err != nil {
					complain(fmt.Errorf("relay from %s: %w", r.Listen, err))
					return
				}
				defer far.Close()
				join(near.(closeWriter), far.(closeWriter))
			}()
		}
	}()
	return nil
}

type closeWriter interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// join copies both ways until both have ended; the end of one way is passed on.
func join(a, b closeWriter) {
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(a, b)
		_ = a.CloseWrite()
		close(done)
	}()
	_, _ = io.Copy(b, a)
	_ = b.CloseWrite()
	<-done
}

// connect ends with 0 whatever happens, and says on stderr what did: in a service's container
// BuildKit takes another code as the end of the service.
func connect(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: shim connect HOST:PORT|/SOCKET")
	}
	network := "tcp"
	if strings.HasPrefix(args[0], "/") {
		network = "unix"
	}
	connection, err := net.DialTimeout(network, args[0], 30*time.Second)
	if err != nil {
		complain(err)
		return nil
	}
	far := connection.(closeWriter)
	defer far.Close()
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	go func() {
		<-told
		os.Exit(0)
	}()
	go func() {
		_, _ = io.Copy(far, os.Stdin)
		_ = far.CloseWrite()
	}()
	if _, err := io.Copy(os.Stdout, far); err != nil {
		complain(err)
		return nil
	}
	// BuildKit tells nobody that we have ended until our input has, so whoever holds that has to
	// hear from us to close it.
	fmt.Fprintln(os.Stderr, "closed")
	return nil
}

func waitForPorts(args []string) error {
	timeout := 60 * time.Second
	if len(args) >= 2 && args[0] == "--timeout" {
		given, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		timeout, args = given, args[2:]
	}
	deadline := time.Now().Add(timeout)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		missing, err := missingPorts(args)
		if err != nil || len(missing) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nothing listens on %s after %s", strings.Join(missing, ", "), timeout)
		}
		time.Sleep(pause)
	}
}

func missingPorts(ports []string) ([]string, error) {
	var missing []string
	for _, text := range ports {
		name, protocol, _ := strings.Cut(text, "/")
		if protocol == "" {
			protocol = "tcp"
		}
		number, err := strconv.ParseUint(name, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%q is not a port", text)
		}
		if !listens(strings.ToLower(protocol), number) {
			missing = append(missing, text)
		}
	}
	return missing, nil
}

// listens looks into the kernel's tables and does not connect: a connection that sends nothing
// is a request to some servers.
func listens(protocol string, port uint64) bool {
	state := "0A" // LISTEN
	if protocol == "udp" {
		state = "07"
	}
	for _, table := range []string{"/proc/net/" + protocol, "/proc/net/" + protocol + "6"} {
		file, err := os.Open(table)
		if err != nil {
			continue
		}
		found := tableHas(file, port, state)
		file.Close()
		if found {
			return true
		}
	}
	return false
}

func tableHas(table io.Reader, port uint64, state string) bool {
	for lines := bufio.NewScanner(table); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != state {
			continue
		}
		local := fields[1]
		number, err := strconv.ParseUint(local[strings.LastIndex(local, ":")+1:], 16, 16)
		if err == nil && number == port {
			return true
		}
	}
	return false
}

// address prints the IPv4 address by which other containers reach this one.
func address() error {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, one := range addresses {
		network, ok := one.(*net.IPNet)
		if ok && network.IP.To4() != nil && !network.IP.IsLoopback() {
			fmt.Println(network.IP.To4())
			return nil
		}
	}
	return errors.New("this container has no address but loopback")
}
