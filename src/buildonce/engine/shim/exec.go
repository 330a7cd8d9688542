package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	specificationVariable = "_BUILDONCE_EXEC"
	hostVariable          = "_BUILDONCE_HOST" // JSON, see hostSettings
)

// specification says what to run. Paths are the container's; relative ones start at the command's
// working directory.
type specification struct {
	Args           []string `json:"args"`
	Stdin          string   `json:"stdin"`           // file to read; empty: no input; "-": the shim's own
	RedirectStdout string   `json:"redirect_stdout"` // files that get a copy of the stream
	RedirectStderr string   `json:"redirect_stderr"`
	Out            string   `json:"out"`    // folder for the files stdout, stderr, combined and exit
	Expect         string   `json:"expect"` // success, failure or any
	SecretEnv      []string `json:"secret_env"`
	SecretFiles    []string `json:"secret_files"`
	// What the command is to have of the variables that the daemon sets for its own tracing.
	Tracing map[string]string `json:"tracing"`
	Relays  []relay           `json:"relays"`
}

// hostSettings reach every command without being in its image, its layers or its cache key.
type hostSettings struct {
	Env     map[string]string `json:"env"`     // defaults: a variable that the command has is left alone
	Secrets []string          `json:"secrets"` // what of it must not be seen
}

func specified() (*specification, error) {
	var spec specification
	text, found := os.LookupEnv(specificationVariable)
	if !found {
		return nil, fmt.Errorf("%s is not set", specificationVariable)
	}
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return nil, fmt.Errorf("%s: %w", specificationVariable, err)
	}
	if len(spec.Args) == 0 {
		return nil, errors.New("there is no command")
	}
	return &spec, nil
}

func check() error {
	spec, err := specified()
	if err != nil {
		return err
	}
	code, err := run(spec)
	if err != nil {
		complain(err)
		code = failed
	}
	_, err = fmt.Printf("\n%d", code)
	return err
}

func runSpecified() int {
	_ = os.WriteFile("/proc/self/comm", []byte(".init"), 0) // what Dagger's process 1 is called
	spec, err := specified()
	if err != nil {
		complain(err)
		return failed
	}
	code, err := run(spec)
	if err != nil {
		complain(err)
		if spec.Out != "" {
			_ = os.WriteFile(filepath.Join(spec.Out, "error"), []byte(err.Error()), 0o644)
		}
		return failed
	}
	return verdict(spec.Expect, code)
}

// verdict is the exit code by which the daemon learns whether the command did what was expected.
// A command that a signal has ended never did: nobody knows how far it came.
func verdict(expect string, code int) int {
	signalled := 128 <= code && code < 192
	switch {
	case expect == "any" && !signalled:
		return 0
	case expect == "failure" && !signalled && code != 0:
		return 0
	case expect == "failure" && code == 0:
		return 1
	}
	return code
}

// run runs the command and answers its exit code. An error is the shim's own.
func run(spec *specification) (int, error) {
	settings, err := givenSettings()
	if err != nil {
		return 0, err
	}
	env := environment(spec, settings)
	for _, r := range spec.Relays {
		if err := r.serve(); err != nil {
			return 0, err
		}
	}
	secrets, err := secretValues(spec, env, settings.Secrets)
	if err != nil {
		return 0, err
	}
	streams, err := openStreams(spec, secrets)
	if err != nil {
		return 0, err
	}
	stdin, err := openStdin(spec.Stdin)
	if err != nil {
		return 0, fmt.Errorf("open redirect stdin file: %w", err)
	}
	defer stdin.Close()
	code := start(spec, env, stdin, streams)
	if err := streams.finish(code); err != nil {
		return 0, err
	}
	return code, nil
}

// start runs the command with its output going into the streams, and waits for it.
func start(spec *specification, env []string, stdin *os.File, s *streams) int {
	path, err := lookUp(spec.Args[0], env)
	if err != nil {
		return s.refuse(err)
	}
	outs, err := s.childFiles()
	if err != nil {
		return s.refuse(err)
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	pid, err := syscall.ForkExec(path, spec.Args, &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{stdin.Fd(), outs[0].Fd(), outs[1].Fd()},
	})
	s.closeChildFiles()
	if err != nil {
		return s.refuse(fmt.Errorf("fork/exec %s: %w", path, err))
	}
	go forward(signals, pid)
	code := reap(pid)
	if os.Getpid() == 1 {
		// What the command has left running would keep its output open; the kernel ends it with
		// us anyhow.
		_ = syscall.Kill(-1, syscall.SIGKILL)
	}
	return code
}

func openStdin(path string) (*os.File, error) {
	switch path {
	case "":
		return os.Open(os.DevNull)
	case "-":
		return os.Stdin, nil
	}
	return os.Open(path)
}

func forward(signals <-chan os.Signal, pid int) {
	for sig := range signals {
		switch sig {
		case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE:
			// ours, not the command's
		default:
			if number, ok := sig.(syscall.Signal); ok {
				_ = syscall.Kill(pid, number)
			}
		}
	}
}

// reap waits for the command, and on the way for every orphan that became ours as process 1.
func reap(pid int) int {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return failed
		}
		if got != pid {
			continue
		}
		if status.Signaled() {
			return 128 + int(status.Signal())
		}
		if status.Exited() {
			return status.ExitStatus()
		}
	}
}

func givenSettings() (settings hostSettings, err error) {
	if text := os.Getenv(hostVariable); text != "" {
		err = json.Unmarshal([]byte(text), &settings)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", hostVariable, err)
	}
	return settings, err
}

// environment is the command's: ours without the specification and without what the daemon adds
// to trace its own steps, with the host's defaults.
func environment(spec *specification, settings hostSettings) []string {
	var env []string
	has := map[string]bool{}
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if name == hostVariable || name == specificationVariable || tracing[name] {
			continue
		}
		has[name] = true
		env = append(env, variable)
	}
	for name, value := range spec.Tracing {
		env = append(env, name+"="+value)
	}
	for name, value := range settings.Env {
		if !has[name] {
			env = append(env, name+"="+value)
		}
	}
	return env
}

var tracing = map[string]bool{
	"OTEL_TRACES_EXPORTER":               true,
	"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": true,
	"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": true,
	"OTEL_TRACE_PARENT":                  true,
	"OTEL_TRACE_STATE":                   true,
	"TRACEPARENT":                        true,
	"TRACESTATE":                         true,
}

func value(env []string, name string) string {
	for _, variable := range env {
		if key, text, _ := strings.Cut(variable, "="); key == name {
			return text
		}
	}
	return ""
}

// lookUp finds the program as a shell would, in the command's own PATH.
func lookUp(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, folder := range filepath.SplitList(value(env, "PATH")) {
		if folder == "" {
			folder = "."
		}
		path := filepath.Join(folder, name)
		if executable(path) {
			if !strings.Contains(path, "/") {
				path = "./" + path
			}
			return path, nil
		}
	}
	return "", fmt.Errorf("exec: %q: executable file not found in $PATH", name)
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir() && info.Mode()&0o111 != 0
}

// refuse says why the command could not be started, and answers its exit code.
func (s *streams) refuse(err error) int {
	s.err.Write([]byte(err.Error() + "\n"))
	return 1
}

func exitText(code int) []byte { return []byte(strconv.Itoa(code)) }
