package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"sort"
)

var censored = []byte("***")

const (
	// A line of a secret of several lines is a secret too when it is at least this long: keys are
	// often printed indented or in part.
	lineLength = 8
	// Larger files are configuration that has secrets in it; their lines are what is looked for.
	wholeLength = 64 << 10
)

// secretValues are the byte strings that must not be seen, the longest first.
func secretValues(spec *specification, env []string, more []string) ([][]byte, error) {
	var values [][]byte
	for _, text := range more {
		values = append(values, []byte(text))
	}
	for _, name := range spec.SecretEnv {
		values = append(values, []byte(value(env, name)))
	}
	for _, path := range spec.SecretFiles {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // what cannot be read cannot be printed by the command either
		}
		if err != nil {
			return nil, err
		}
		values = append(values, data)
	}
	found := map[string]bool{}
	for _, data := range values {
		trimmed := bytes.TrimSpace(data)
		if len(trimmed) == 0 {
			continue
		}
		// White space around a value is no secret, and is often lost or added on the way.
		if len(trimmed) <= wholeLength {
			found[string(trimmed)] = true
			found[string(data)] = true // printed as it is, nothing of it is left
		}
		lines := bytes.Split(trimmed, []byte("\n"))
		for _, line := range lines {
			if line = bytes.TrimSpace(line); len(lines) > 1 && len(line) >= lineLength {
				found[string(line)] = true
			}
		}
	}
	secrets := make([][]byte, 0, len(found))
	for text := range found {
		secrets = append(secrets, []byte(text))
	}
	sort.Slice(secrets, func(i, j int) bool {
		if len(secrets[i]) != len(secrets[j]) {
			return len(secrets[i]) > len(secrets[j])
		}
		return bytes.Compare(secrets[i], secrets[j]) < 0
	})
	return secrets, nil
}

// scrubber replaces secrets in a stream. What could be the beginning of one is held back until
// the bytes after it have come.
type scrubber struct {
	secrets [][]byte
	held    []byte
}

// next takes more of the stream and answers what may be shown of it.
func (s *scrubber) next(data []byte) []byte {
	if len(s.secrets) == 0 {
		return data
	}
	buffer := append(s.held, data...)
	shown, rest := s.replace(buffer, false)
	s.held = append([]byte(nil), rest...)
	return shown
}

// rest answers what was held back, at the end of the stream.
func (s *scrubber) rest() []byte {
	shown, _ := s.replace(s.held, true)
	s.held = nil
	return shown
}

func (s *scrubber) replace(data []byte, atEnd bool) (shown, rest []byte) {
	limit := len(data)
	if !atEnd {
		limit = s.unfinished(data)
	}
	next := make([]int, len(s.secrets)) // where each secret is found next; -1: nowhere
	for i, secret := range s.secrets {
		next[i] = bytes.Index(data, secret)
	}
	position := 0
	for {
		first, at := -1, limit
		for i, secret := range s.secrets {
			if next[i] >= 0 && next[i] < position {
				next[i] = bytes.Index(data[position:], secret)
				if next[i] >= 0 {
					next[i] += position
				}
			}
			// The longest comes first, so at the same place it wins.
			if next[i] >= 0 && next[i] < at {
				first, at = i, next[i]
			}
		}
		if first < 0 {
			break
		}
		shown = append(shown, data[position:at]...)
		shown = append(shown, censored...)
		position = at + len(s.secrets[first])
	}
	if position >= limit {
		return shown, data[position:]
	}
	return append(shown, data[position:limit]...), data[limit:]
}

// unfinished is where the first secret begins that the end of data may be the beginning of.
func (s *scrubber) unfinished(data []byte) int {
	longest := 0
	for _, secret := range s.secrets {
		size := len(secret) - 1
		if size > len(data) {
			size = len(data)
		}
		for ; size > longest; size-- {
			if bytes.HasSuffix(data, secret[:size]) {
				longest = size
				break
			}
		}
	}
	return len(data) - longest
}
