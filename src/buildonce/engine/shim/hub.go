package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A network for the containers of a daemon that is not root: a network namespace with a bridge. No
// packet leaves it, for that would take root or a device that few may open. Connections and
// questions for names are taken from it by a process that has its sockets in both namespaces, and
// made anew in that of the daemon.
//
//	shim hub SETTINGS COMMAND ARG...  make it, then become the command (buildkitd)
//	shim hub-relay PID                what carries connections, as long as that process lives
//	shim hub-probe SETTINGS           try whether all that is possible here
//
// SETTINGS is JSON, see network. Containers are plugged in by the CNI plugin in cni.go.
type network struct {
	Namespace string `json:"namespace"` // a file that is to stand for it
	Bridge    string `json:"bridge"`
	Gateway   string `json:"gateway"` // of the bridge: 10.208.0.1/20
	Addresses string `json:"addresses"`
}

const originalDestination = 80 // SO_ORIGINAL_DST

// The daemon's CNI library writes there, wherever else it is told to.
const cniResults = "/var/lib/cni"

func hub(args []string) error {
	var settings network
	if len(args) < 2 {
		return errors.New("usage: shim hub SETTINGS COMMAND ARG...")
	}
	if err := json.Unmarshal([]byte(args[0]), &settings); err != nil {
		return err
	}
	command, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	if err := ownResults(); err != nil {
		return err
	}
	sockets, err := settings.begun()
	if err != nil {
		return err
	}
	relay := exec.Command("/proc/self/exe", "hub-relay", strconv.Itoa(os.Getpid()))
	relay.ExtraFiles = sockets
	relay.Stderr = os.Stderr
	if err := relay.Start(); err != nil {
		return err
	}
	// What we are to end with is a matter of the thread, and this may be another than at the start.
	runtime.LockOSThread()
	_, _, number := syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0)
	if number != 0 {
		return number
	}
	return syscall.Exec(command, args[1:], os.Environ())
}

// ownResults makes the folder of CNI's results one of ours. It is a link to that of the machine, if
// there is one, in a copy of the folder above it.
func ownResults() error {
	if target, err := os.Readlink(cniResults); err == nil && target != "" {
		if err := os.Remove(cniResults); err != nil {
			return err
		}
	}
	return os.MkdirAll(cniResults, 0o700)
}

// begun is begin in a thread that ends with it: the way back to the first namespace is barred.
func (n network) begun() ([]*os.File, error) {
	type made struct {
		sockets []*os.File
		err     error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread()
		sockets, err := n.begin()
		done <- made{sockets, err}
	}()
	namespace := <-done
	return namespace.sockets, namespace.err
}

// begin moves this thread to a namespace that it makes, and names it.
func (n network) begin() ([]*os.File, error) {
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("no network namespace can be made: %w", err)
	}
	sockets, err := n.furnish()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(n.Namespace, nil, 0o600); err != nil {
		return nil, err
	}
	err = syscall.Mount("/proc/thread-self/ns/net", n.Namespace, "", syscall.MS_BIND, "")
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", n.Namespace, err)
	}
	return sockets, nil
}

// hubProbe tries it in namespaces of its own, as those of the daemon will be.
func hubProbe(args []string) error {
	var settings network
	if len(args) == 0 {
		return errors.New("usage: shim hub-probe SETTINGS")
	}
	if err := json.Unmarshal([]byte(args[0]), &settings); err != nil {
		return err
	}
	if len(args) == 1 {
		again := exec.Command("/proc/self/exe", "hub-probe", args[0], "inside")
		again.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		again.Stderr = os.Stderr
		return again.Run()
	}
	// Some versions of iptables lock a file there.
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	if _, err := settings.furnish(); err != nil {
		return err
	}
	return ip("link add v0 type veth peer name v1", "link set v0 master "+settings.Bridge)
}

// furnish makes what is needed in the namespace of this thread, and answers the sockets, TCP and
// UDP, that get what containers send elsewhere.
func (n network) furnish() ([]*os.File, error) {
	gateway, subnet, err := net.ParseCIDR(n.Gateway)
	if err != nil {
		return nil, err
	}
	err = ip(
		"link set lo up",
		"link add "+n.Bridge+" type bridge",
		"addr add "+n.Gateway+" dev "+n.Bridge,
		"link set "+n.Bridge+" up",
	)
	if err != nil {
		return nil, err
	}
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: gateway})
	if err != nil {
		return nil, err
	}
	names, err := net.ListenUDP("udp4", &net.UDPAddr{IP: gateway})
	if err != nil {
		return nil, err
	}
	from := []string{"-w", "10", "-t", "nat", "-A", "PREROUTING", "-i", n.Bridge, "!", "-d", subnet.String()}
	port := func(address net.Addr) string { return address.String()[strings.LastIndex(address.String(), ":")+1:] }
	for _, rule := range [][]string{
		{"-p", "tcp", "-j", "REDIRECT", "--to-ports", port(listener.Addr())},
		{"-p", "udp", "--dport", "53", "-j", "REDIRECT", "--to-ports", port(names.LocalAddr())},
	} {
		if err := quietly(exec.Command("iptables", append(from, rule...)...)); err != nil {
			return nil, err
		}
	}
	tcp, err := listener.File()
	if err != nil {
		return nil, err
	}
	udp, err := names.File()
	return []*os.File{tcp, udp}, err
}

// ip runs commands of iproute2 in the network namespace of this thread.
func ip(lines ...string) error {
	command := exec.Command("ip", "-batch", "-")
	command.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	return quietly(command)
}

func quietly(command *exec.Cmd) error {
	var said bytes.Buffer
	command.Stderr = &said
	if err := command.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", command.Args[0], err, strings.TrimSpace(said.String()))
	}
	return nil
}

// enter moves this thread to a network namespace.
func enter(namespace *os.File) error {
	_, _, number := syscall.RawSyscall(setns, namespace.Fd(), syscall.CLONE_NEWNET, 0)
	if number != 0 {
		return fmt.Errorf("enter %s: %w", namespace.Name(), number)
	}
	return nil
}

// hubRelay gets the sockets of furnish as its files 3 and 4.
func hubRelay(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: shim hub-relay PID")
	}
	daemon, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	connections, err := net.FileListener(os.NewFile(3, "tcp"))
	if err != nil {
		return err
	}
	questions, err := net.FilePacketConn(os.NewFile(4, "udp"))
	if err != nil {
		return err
	}
	server := nameServer("/etc/resolv.conf")
	go relayNames(questions, server)
	go func() {
		for {
			near, err := connections.Accept()
			if err != nil {
				complain(err)
				return
			}
			go relayConnection(near.(*net.TCPConn), server)
		}
	}()
	for os.Getppid() == daemon {
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

func relayConnection(near *net.TCPConn, nameServer string) {
	defer near.Close()
	wanted, err := destination(near)
	if err != nil {
		return // not redirected: meant for this port, where nothing is
	}
	if strings.HasSuffix(wanted, ":53") {
		wanted = nameServer
	}
	far, err := net.Dial("tcp", wanted)
	if err != nil {
		_ = near.SetLinger(0) // a reset: the nearest to a connection that is refused
		return
	}
	defer far.Close()
	join(near, far.(closeWriter))
}

// destination is where the connection was meant to go before it was redirected.
func destination(connection *net.TCPConn) (string, error) {
	raw, err := connection.SyscallConn()
	if err != nil {
		return "", err
	}
	var found *syscall.IPv6Mreq // of the size that a sockaddr_in has, at least
	var failure error
	err = raw.Control(func(number uintptr) {
		found, failure = syscall.GetsockoptIPv6Mreq(int(number), syscall.IPPROTO_IP, originalDestination)
	})
	if err = errors.Join(err, failure); err != nil {
		return "", err
	}
	address := found.Multiaddr
	port := int(address[2])<<8 | int(address[3])
	return net.JoinHostPort(net.IP(address[4:8]).String(), strconv.Itoa(port)), nil
}

func relayNames(questions net.PacketConn, server string) {
	for {
		question := make([]byte, 4096)
		size, from, err := questions.ReadFrom(question)
		if err != nil {
			complain(err)
			return
		}
		go func() {
			far, err := net.Dial("udp", server)
			if err != nil {
				return
			}
			defer far.Close()
			_ = far.SetDeadline(time.Now().Add(10 * time.Second))
			answer := make([]byte, 65536)
			if _, err := far.Write(question[:size]); err != nil {
				return
			}
			if size, err := far.Read(answer); err == nil {
				_, _ = questions.WriteTo(answer[:size], from)
			}
		}()
	}
}

// nameServer is the first that the file names.
func nameServer(path string) string {
	text, _ := os.ReadFile(path)
	for _, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == "nameserver" {
			return net.JoinHostPort(fields[1], "53")
		}
	}
	return "127.0.0.1:53"
}
