package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// The CNI plugin that connects containers to a hub (hub.go), in the words of version 0.4.0 of the
// specification. It is this program under the names "buildonce-hub" and "loopback".
var plugins = map[string]func(cniRequest) (any, error){
	"buildonce-hub": plugHub,
	"loopback":      plugLoopback,
}

const cniVersion = "0.4.0"

type cniRequest struct {
	network
	command, container, namespace, device string
}

func cni(plug func(cniRequest) (any, error)) int {
	answer, err := answerCNI(plug)
	if err != nil {
		answer = map[string]any{"cniVersion": cniVersion, "code": 100, "msg": err.Error()}
	}
	if answer != nil {
		_ = json.NewEncoder(os.Stdout).Encode(answer)
	}
	if err != nil {
		return 1
	}
	return 0
}

func answerCNI(plug func(cniRequest) (any, error)) (any, error) {
	request := cniRequest{
		command:   os.Getenv("CNI_COMMAND"),
		container: os.Getenv("CNI_CONTAINERID"),
		namespace: os.Getenv("CNI_NETNS"),
		device:    os.Getenv("CNI_IFNAME"),
	}
	if request.command == "VERSION" {
		return map[string]any{"cniVersion": cniVersion, "supportedVersions": []string{cniVersion}}, nil
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &request.network); err != nil {
		return nil, err
	}
	return plug(request)
}

func plugLoopback(request cniRequest) (any, error) {
	if request.command != "ADD" {
		return nil, nil
	}
	err := inside(request.namespace, "link set lo up")
	return map[string]any{
		"cniVersion": cniVersion,
		"interfaces": []any{map[string]string{"name": "lo", "sandbox": request.namespace}},
	}, err
}

func plugHub(request cniRequest) (any, error) {
	switch request.command {
	case "ADD":
	case "DEL":
		return nil, request.release()
	default:
		return nil, nil
	}
	gateway, _, err := net.ParseCIDR(request.Gateway)
	if err != nil {
		return nil, err
	}
	address, err := request.reserve()
	if err != nil {
		return nil, err
	}
	near := fmt.Sprintf("v%d-%d", os.Getpid(), address.IP[3])
	pair := "link add " + near + " type veth peer name " + request.device + " netns " + request.namespace
	if err := inside(request.Namespace, pair, "link set "+near+" master "+request.Bridge+" up"); err != nil {
		return nil, errors.Join(err, request.release())
	}
	err = inside(
		request.namespace,
		"addr add "+address.String()+" dev "+request.device,
		"link set "+request.device+" up",
		"route add default via "+gateway.String(),
	)
	if err != nil {
		return nil, errors.Join(err, request.release())
	}
	return map[string]any{
		"cniVersion": cniVersion,
		"interfaces": []any{map[string]string{"name": request.device, "sandbox": request.namespace}},
		"ips": []any{map[string]any{
			"version": "4", "interface": 0, "address": address.String(), "gateway": gateway.String(),
		}},
		"routes": []any{map[string]string{"dst": "0.0.0.0/0", "gw": gateway.String()}},
	}, nil
}

// inside runs commands of iproute2 in a network namespace.
func inside(namespace string, lines ...string) error {
	runtime.LockOSThread() // and never back: this process ends soon
	file, err := os.Open(namespace)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := enter(file); err != nil {
		return err
	}
	return ip(lines...)
}

// reserve takes an address that no other container has: a file named after it holds whose it is.
func (r cniRequest) reserve() (*net.IPNet, error) {
	gateway, subnet, err := net.ParseCIDR(r.Gateway)
	if err != nil {
		return nil, err
	}
	ones, bits := subnet.Mask.Size()
	most := 1<<(bits-ones) - 2 // but for the network itself and the broadcast
	if err := os.MkdirAll(r.Addresses, 0o700); err != nil {
		return nil, err
	}
	// Not the lowest that is free: what a container has just left, others may still speak to.
	first := os.Getpid()
	for offset := 0; offset < most; offset++ {
		number := 1 + (first+offset)%most
		address := net.IPv4(subnet.IP[0], subnet.IP[1], subnet.IP[2]+byte(number>>8), subnet.IP[3]+byte(number)).To4()
		if address.Equal(gateway) {
			continue
		}
		path := filepath.Join(r.Addresses, address.String())
		file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		_, err = file.WriteString(r.container)
		return &net.IPNet{IP: address, Mask: subnet.Mask}, errors.Join(err, file.Close())
	}
	return nil, errors.New("no address is free in " + subnet.String() + " of " + strconv.Itoa(most))
}

// release gives the container's address back; its devices go with its namespace.
func (r cniRequest) release() error {
	files, err := os.ReadDir(r.Addresses)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, file := range files {
		path := filepath.Join(r.Addresses, file.Name())
		if owner, err := os.ReadFile(path); err == nil && string(owner) == r.container {
			return os.Remove(path)
		}
	}
	return err
}
