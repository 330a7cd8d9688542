package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 2 1
`

func TestTable(t *testing.T) {
	for port, want := range map[uint64]bool{8080: true, 8081: false, 80: false} {
		if got := tableHas(strings.NewReader(table), port, "0A"); got != want {
			t.Errorf("port %d: %v", port, got)
		}
	}
}

func TestWaitForPorts(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	if err := waitForPorts([]string{"--timeout", "5s", port, port + "/tcp"}); err != nil {
		t.Error(err)
	}
	listener.Close()
	started := time.Now()
	err = waitForPorts([]string{"--timeout", "50ms", port})
	if err == nil || !strings.Contains(err.Error(), port) {
		t.Errorf("nothing listens, but: %v", err)
	}
	if time.Since(started) > 5*time.Second {
		t.Error("it took too long")
	}
	if err := waitForPorts([]string{"http"}); err == nil {
		t.Error("http is no port")
	}
}

func TestRelay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		defer connection.Close()
		buffer := make([]byte, 100)
		n, _ := connection.Read(buffer)
		_, _ = connection.Write([]byte(strings.ToUpper(string(buffer[:n]))))
	}()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	if err := (relay{Listen: address, Socket: path}).serve(); err != nil {
		t.Fatal(err)
	}
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if _, err := connection.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 100)
	if n, _ := connection.Read(buffer); string(buffer[:n]) != "HELLO" {
		t.Errorf("got %q", buffer[:n])
	}
	if err := (relay{Listen: "127.0.0.1:-1", Socket: path}).serve(); err == nil {
		t.Error("a port that is none")
	}
}
