package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	pipeSize    = 1 << 20
	setPipeSize = 1031 // F_SETPIPE_SZ
	// How much of a stream is shown while the command runs; the files have all of it.
	shown = 16 << 20
	// How long output may stay open after the command has ended, held by a process that it has
	// left behind where we are not process 1 and could not end it.
	drain = 2 * time.Second
)

// streams are the command's two outputs and all the places they go.
type streams struct {
	spec     *specification
	out, err *stream
	direct   bool // nothing looks at the output, so the command writes straight to ours
	pipes    []*os.File
	pumps    sync.WaitGroup
	readers  []*os.File
}

// stream is one output: a scrubber, and the writers behind it.
type stream struct {
	scrub *scrubber
	files []io.WriteCloser
	live  *os.File
	left  int
	both  *shared
}

// shared is the file that gets both streams.
type shared struct {
	sync.Mutex
	file *os.File
}

func openStreams(spec *specification, secrets [][]byte) (*streams, error) {
	s := &streams{spec: spec}
	s.out = &stream{live: os.Stdout, left: shown}
	s.err = &stream{live: os.Stderr, left: shown}
	s.direct = spec.Out == "" && spec.RedirectStdout == "" && spec.RedirectStderr == "" &&
		len(secrets) == 0
	if spec.Out != "" {
		combined, err := create(filepath.Join(spec.Out, "combined"), 0o644)
		if err != nil {
			return nil, err
		}
		both := &shared{file: combined}
		s.out.both, s.err.both = both, both
	}
	for _, item := range []struct {
		stream         *stream
		name, redirect string
	}{{s.out, "stdout", spec.RedirectStdout}, {s.err, "stderr", spec.RedirectStderr}} {
		item.stream.scrub = &scrubber{secrets: secrets}
		if spec.Out != "" {
			file, err := create(filepath.Join(spec.Out, item.name), 0o644)
			if err != nil {
				return nil, err
			}
			item.stream.files = append(item.stream.files, file)
		}
		if item.redirect != "" {
			file, err := create(item.redirect, 0o600)
			if err != nil {
				return nil, fmt.Errorf("open redirect %s file: %w", item.name, err)
			}
			item.stream.files = append(item.stream.files, file)
		}
	}
	return s, nil
}

func create(path string, mode os.FileMode) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
}

// childFiles are what the command gets as stdout and stderr.
func (s *streams) childFiles() ([]*os.File, error) {
	if s.direct {
		return []*os.File{os.Stdout, os.Stderr}, nil
	}
	for _, target := range []*stream{s.out, s.err} {
		var ends [2]int
		if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC); err != nil {
			return nil, err
		}
		_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, uintptr(ends[0]), setPipeSize, pipeSize)
		// Non-blocking, so that closing the reader ends the pump that waits in it.
		_ = syscall.SetNonblock(ends[0], true)
		reader := os.NewFile(uintptr(ends[0]), "output")
		s.readers = append(s.readers, reader)
		s.pipes = append(s.pipes, os.NewFile(uintptr(ends[1]), "input"))
		s.pumps.Add(1)
		go s.pump(reader, target)
	}
	return s.pipes, nil
}

func (s *streams) closeChildFiles() {
	for _, pipe := range s.pipes {
		pipe.Close()
	}
}

func (s *streams) pump(reader *os.File, target *stream) {
	defer s.pumps.Done()
	buffer := make([]byte, pipeSize)
	for {
		n, err := reader.Read(buffer)
		if n > 0 {
			target.Write(buffer[:n])
		}
		if err != nil {
			return
		}
	}
}

// finish waits for the last output and writes down how the command has ended.
func (s *streams) finish(code int) error {
	done := make(chan struct{})
	go func() { s.pumps.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(drain):
		for _, reader := range s.readers {
			reader.Close()
		}
		<-done
	}
	for _, target := range []*stream{s.out, s.err} {
		if err := target.close(); err != nil {
			return err
		}
	}
	if s.spec.Out == "" {
		return nil
	}
	if err := s.out.both.file.Close(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.spec.Out, "exit"), exitText(code), 0o644)
}

func (t *stream) Write(data []byte) (int, error) {
	t.deliver(t.scrub.next(data))
	return len(data), nil
}

func (t *stream) close() error {
	t.deliver(t.scrub.rest())
	for _, file := range t.files {
		if err := file.Close(); err != nil {
			return err
		}
	}
	return nil
}

// deliver writes to every place. A full disk shows when the files are closed or in the exit file;
// the command goes on, as it would with a pipe that nobody reads carefully.
func (t *stream) deliver(data []byte) {
	if len(data) == 0 {
		return
	}
	for _, file := range t.files {
		_, _ = file.Write(data)
	}
	if t.both != nil {
		t.both.Lock()
		_, _ = t.both.file.Write(data)
		t.both.Unlock()
	}
	if t.left <= 0 {
		return
	}
	if len(data) > t.left {
		data = data[:t.left]
	}
	t.left -= len(data)
	_, _ = t.live.Write(data)
	if t.left == 0 {
		fmt.Fprintf(t.live, "\n[more than %d MiB of output; the rest is kept but not shown]\n", shown>>20)
	}
}
