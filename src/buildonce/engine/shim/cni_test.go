package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAddresses(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "addresses")
	request := func(container string) cniRequest {
		settings := network{Gateway: "10.208.0.1/29", Addresses: folder}
		return cniRequest{network: settings, container: container}
	}
	first := request("first")
	taken := map[string]bool{"10.208.0.1": true}
	for number := 0; number < 5; number++ { // six hosts, one of them the bridge
		address, err := first.reserve()
		if err != nil {
			t.Fatal(number, err)
		}
		if taken[address.IP.String()] || address.IP[3] == 0 || address.IP[3] == 7 {
			t.Error("given twice, or not to be given:", address)
		}
		taken[address.IP.String()] = true
		first.container = "other"
	}
	if address, err := first.reserve(); err == nil {
		t.Error("none was left, but:", address)
	}
	first.container = "first"
	if err := first.release(); err != nil {
		t.Error(err)
	}
	if err := first.release(); err != nil {
		t.Error("again:", err)
	}
	if _, err := first.reserve(); err != nil {
		t.Error(err)
	}
}

func TestNameServer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	for text, want := range map[string]string{
		"search x\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n": "192.0.2.1:53",
		"nameserver ::1": "[::1]:53",
		"# none\n":       "127.0.0.1:53",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := nameServer(file); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}
