package main

import (
	"bytes"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func scrub(chunks []string, secrets ...string) string {
	s := &scrubber{}
	for _, secret := range secrets {
		s.secrets = append(s.secrets, []byte(secret))
	}
	var out bytes.Buffer
	for _, chunk := range chunks {
		out.Write(s.next([]byte(chunk)))
	}
	out.Write(s.rest())
	return out.String()
}

func TestScrub(t *testing.T) {
	for _, c := range []struct {
		in, want string
		secrets  []string
	}{
		{"nothing here", "nothing here", []string{"secret"}},
		{"a secret b secret", "a *** b ***", []string{"secret"}},
		{"secretsecret", "******", []string{"secret"}},
		{"sesecret", "se***", []string{"secret"}},
		{"abcdef abc", "*** ***", []string{"abcdef", "abc"}},
		{"abcde abc", "***de ***", []string{"abcdef", "abc"}},
		{"aXa", "***", []string{"aXa"}},
		{"aXaXa", "***Xa", []string{"aXa"}},
		{"secre", "secre", []string{"secret"}},
	} {
		if got := scrub([]string{c.in}, c.secrets...); got != c.want {
			t.Errorf("%q without %q is %q, not %q", c.in, c.secrets, got, c.want)
		}
		// One byte at a time, and cut in two at every place.
		if got := scrub(strings.Split(c.in, ""), c.secrets...); got != c.want {
			t.Errorf("%q in bytes without %q is %q, not %q", c.in, c.secrets, got, c.want)
		}
		for i := range c.in {
			if got := scrub([]string{c.in[:i], c.in[i:]}, c.secrets...); got != c.want {
				t.Errorf("%q|%q without %q is %q, not %q", c.in[:i], c.in[i:], c.secrets, got, c.want)
			}
		}
	}
}

func TestScrubDoesNotDependOnChunks(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	secrets := []string{"abab", "aba", "bb"}
	for i := 0; i < 2000; i++ {
		var text strings.Builder
		for n := random.Intn(40); n > 0; n-- {
			text.WriteByte("abc"[random.Intn(3)])
		}
		whole := scrub([]string{text.String()}, secrets...)
		var chunks []string
		for rest := text.String(); rest != ""; {
			n := 1 + random.Intn(len(rest))
			chunks, rest = append(chunks, rest[:n]), rest[n:]
		}
		if got := scrub(chunks, secrets...); got != whole {
			t.Fatalf("%q in %q is %q, not %q", text.String(), chunks, got, whole)
		}
	}
}

func TestSecretValues(t *testing.T) {
	folder := t.TempDir()
	key := filepath.Join(folder, "key")
	if err := os.WriteFile(key, []byte("\n-----BEGIN-----\n  AbCdEfGh\nshort\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := &specification{
		SecretEnv:   []string{"TOKEN", "EMPTY", "UNSET"},
		SecretFiles: []string{key, filepath.Join(folder, "missing")},
	}
	values, err := secretValues(spec, []string{"TOKEN= hunter2 \n", "EMPTY=", "OTHER=x"}, []string{"of-the-host"})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, value := range values {
		found[string(value)] = true
	}
	for _, want := range []string{"of-the-host", "hunter2", "AbCdEfGh", "-----BEGIN-----"} {
		if !found[want] {
			t.Errorf("%q is not among %q", want, values)
		}
	}
	for _, not := range []string{"", "short", "x"} {
		if found[not] {
			t.Errorf("%q is among %q", not, values)
		}
	}
}

func BenchmarkScrub(b *testing.B) {
	s := &scrubber{secrets: [][]byte{[]byte("hunter2"), []byte("correct horse")}}
	data := bytes.Repeat([]byte("a line of output that is like any other\n"), 25000)
	b.SetBytes(int64(len(data)))
	for i := 0; i < b.N; i++ {
		s.next(data)
	}
}
