package main

// Questions about a whole tree, answered beside the data (see engine/inspection.py). The tree is
// mounted read-only at /.buildonce/tree and the answer, JSON, is written to /.buildonce/out.
// The tree is hostile: every path is resolved inside it, and no link leads out.

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"unicode/utf8"
)

const (
	treeRoot   = "/.buildonce/tree"
	answerPath = "/.buildonce/out/answer.json"
)

type question struct {
	Root        string   `json:"root"`
	Path        string   `json:"path"`
	Follow      bool     `json:"follow"`
	Pattern     string   `json:"pattern"`
	Paths       []string `json:"paths"`
	Globs       []string `json:"globs"`
	Literal     bool     `json:"literal"`
	Multiline   bool     `json:"multiline"`
	Dotall      bool     `json:"dotall"`
	Insensitive bool     `json:"insensitive"`
	Skip        []string `json:"skip"`
	Names       []string `json:"names"`
	SkipHidden  bool     `json:"skip_hidden"`
	FilesOnly   bool     `json:"files_only"`
	Limit       *int     `json:"limit"`
	ContentOnly bool     `json:"content_only"`
}

var questions = map[string]func(question) (any, error){
	"glob":    askGlob,
	"digest":  askDigest,
	"search":  askSearch,
	"stat":    askStat,
	"ignores": askIgnores,
}

// inspect answers one question; its exit code is 0 also when the answer is that it cannot be
// answered, because that is as cacheable as any other answer.
func inspect(name, settings string) int {
	var asked question
	if err := json.Unmarshal([]byte(settings), &asked); err != nil {
		fmt.Fprintln(os.Stderr, "shim: settings:", err)
		return 2
	}
	// The empty tree is not mounted.
	err := os.MkdirAll(treeRoot, 0o755)
	var answer any
	if err == nil {
		answer, err = questions[name](asked)
	}
	if err != nil {
		answer = map[string]string{"error": err.Error()}
	}
	data, err := json.Marshal(answer)
	if err == nil {
		err = os.WriteFile(answerPath, data, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shim:", err)
		return 1
	}
	return 0
}

// resolve finds the real place of a path of the tree, following links inside the tree only.
func resolve(name string, followLast bool) (string, error) {
	return resolveIn("", name, followLast)
}

// resolveIn does so for a path of a folder of the tree (a real place), which links cannot leave.
func resolveIn(folder, name string, followLast bool) (string, error) {
	top := treeRoot + strings.TrimSuffix(folder, "/")
	parts := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
	current, links := "/", 0
	for len(parts) > 0 {
		part := parts[0]
		parts = parts[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			current = path.Dir(current)
			continue
		}
		next := path.Join(current, part)
		info, err := os.Lstat(top + next)
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 || (len(parts) == 0 && !followLast) {
			current = next
			continue
		}
		if links++; links > 40 {
			return "", errors.New("too many levels of symbolic links")
		}
		target, err := os.Readlink(top + next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			current = "/"
		}
		parts = append(strings.Split(target, "/"), parts...)
	}
	return current, nil
}

// walkTree calls visit with each path below root, relative to it, in the order of names.
func walkTree(root string, visit func(name string, info fs.DirEntry) error) error {
	real, err := resolve(root, true)
	if err != nil {
		return fmt.Errorf("%s: no such file or directory", root)
	}
	top := treeRoot + real
	return filepath.WalkDir(top, func(full string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if full == top {
			return nil
		}
		name := strings.TrimPrefix(full[len(strings.TrimSuffix(top, "/")):], "/")
		return visit(name, entry)
	})
}

// compileGlob reads a pattern as Docker does: * and ? stop at slashes, ** does not.
func compileGlob(pattern string) (*regexp.Regexp, error) {
	var out strings.Builder
	out.WriteString("^")
	runes := []rune(pattern)
	for i := 0; i < len(runes); i++ {
		switch c := runes[i]; c {
		case '*':
			if i+1 < len(runes) && runes[i+1] == '*' {
				i++
				if i+1 < len(runes) && runes[i+1] == '/' {
					i++
					out.WriteString("(?:.*/)?")
				} else {
					out.WriteString(".*")
				}
			} else {
				out.WriteString("[^/]*")
			}
		case '?':
			out.WriteString("[^/]")
		case '\\':
			if i++; i >= len(runes) {
				return nil, errors.New("syntax error in pattern")
			}
			out.WriteString(regexp.QuoteMeta(string(runes[i])))
		case '[':
			end := i + 1
			for end < len(runes) && (runes[end] != ']' || end == i+1) {
				if runes[end] == '\\' {
					end++
				}
				end++
			}
			if end >= len(runes) {
				return nil, errors.New("syntax error in pattern")
			}
			out.WriteString(string(runes[i : end+1]))
			i = end
		default:
			out.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	out.WriteString("$")
	compiled, err := regexp.Compile(out.String())
	if err != nil {
		return nil, errors.New("syntax error in pattern")
	}
	return compiled, nil
}

func askGlob(q question) (any, error) {
	pattern := path.Clean(q.Pattern)
	compiled, err := compileGlob(pattern)
	if err != nil {
		return nil, fmt.Errorf("invalid glob pattern %q: %w", q.Pattern, err)
	}
	found := []string{}
	err = walkTree(q.Root, func(name string, entry fs.DirEntry) error {
		if compiled.MatchString(name) {
			if entry.IsDir() {
				name += "/"
			}
			found = append(found, name)
		}
		return nil
	})
	return found, err
}

func askStat(q question) (any, error) {
	answer := map[string]any{"exists": false, "kind": "", "size": 0, "permissions": 0}
	real, err := resolve(path.Join(q.Root, q.Path), q.Follow)
	if err != nil {
		return answer, nil
	}
	info, err := os.Lstat(treeRoot + real)
	if err != nil {
		return answer, nil
	}
	answer["exists"], answer["size"] = true, info.Size()
	answer["permissions"] = info.Mode().Perm()
	switch mode := info.Mode(); {
	case mode.IsDir():
		answer["kind"] = "DIRECTORY_TYPE"
	case mode.IsRegular():
		answer["kind"] = "REGULAR_TYPE"
	case mode&fs.ModeSymlink != 0:
		answer["kind"] = "SYMLINK_TYPE"
	}
	return answer, nil
}

// askDigest hashes names, kinds, permissions, owners and contents, and no times: what BuildKit
// counts as a tree's content.
func askDigest(q question) (any, error) {
	real, err := resolve(q.Root, true)
	if err != nil {
		return nil, fmt.Errorf("%s: no such file or directory", q.Root)
	}
	info, err := os.Lstat(treeRoot + real)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	add := func(name, full string, info fs.FileInfo) error {
		if !q.ContentOnly {
			uid, gid := ownerOf(info)
			fmt.Fprintf(sum, "%q %o %d %d ", name, uint32(info.Mode()), uid, gid)
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(full)
			if err != nil {
				return err
			}
			fmt.Fprintf(sum, "-> %q\n", target)
		case info.Mode().IsRegular():
			file, err := os.Open(full)
			if err != nil {
				return err
			}
			defer file.Close()
			content := sha256.New()
			if _, err := io.Copy(content, file); err != nil {
				return err
			}
			if q.ContentOnly {
				sum.Write(content.Sum(nil)) // Dagger's is such a digest of a digest
			} else {
				fmt.Fprintf(sum, "%x\n", content.Sum(nil))
			}
		default:
			fmt.Fprintln(sum)
		}
		return nil
	}
	if !info.IsDir() {
		err = add("", treeRoot+real, info)
	} else {
		err = walkTree(q.Root, func(name string, entry fs.DirEntry) error {
			info, err := entry.Info()
			if err != nil {
				return err
			}
			return add(name, path.Join(treeRoot+real, name), info)
		})
	}
	if err != nil {
		return nil, err
	}
	return map[string]string{"digest": "sha256:" + hex.EncodeToString(sum.Sum(nil))}, nil
}

type submatch struct {
	Text  string `json:"text"`
	Start int    `json:"start"`
	End   int    `json:"end"`
}

type found struct {
	Path    string     `json:"path"`
	Line    int        `json:"line"`
	Offset  int        `json:"offset"`
	Text    string     `json:"text"`
	Matches []submatch `json:"matches"`
}

var errEnough = errors.New("enough found")

func askSearch(q question) (any, error) {
	expression := q.Pattern
	if q.Literal {
		expression = regexp.QuoteMeta(expression)
	}
	flags := "m"
	if q.Insensitive {
		flags += "i"
	}
	if q.Dotall {
		flags += "s"
	}
	compiled, err := regexp.Compile("(?" + flags + ")" + expression)
	if err != nil {
		return nil, fmt.Errorf("invalid search pattern %q: %v", q.Pattern, err)
	}
	var globs []*regexp.Regexp
	for _, glob := range q.Globs {
		if !strings.Contains(glob, "/") {
			glob = "**/" + glob
		}
		one, err := compileGlob(strings.TrimPrefix(glob, "/"))
		if err != nil {
			return nil, fmt.Errorf("invalid glob pattern %q: %w", glob, err)
		}
		globs = append(globs, one)
	}
	roots := q.Paths
	if len(roots) == 0 {
		roots = []string{""}
	}
	folder, err := resolve(q.Root, true)
	if err != nil {
		return nil, fmt.Errorf("%s: no such file or directory", q.Root)
	}
	skipped := map[string]bool{}
	for _, name := range q.Skip {
		skipped[name] = true
	}
	results := []found{}
	visit := func(name string) error {
		if len(globs) > 0 {
			fits := false
			for _, glob := range globs {
				fits = fits || glob.MatchString(name)
			}
			if !fits {
				return nil
			}
		}
		real, err := resolveIn(folder, name, true)
		if err != nil {
			return nil
		}
		data, err := os.ReadFile(treeRoot + path.Join(folder, real))
		if err != nil || bytes.IndexByte(data, 0) >= 0 {
			return nil // what cannot be read as text is not searched
		}
		for _, hit := range searchIn(data, compiled, q.Multiline) {
			hit.Path = name
			if q.FilesOnly {
				hit = found{Path: name}
			}
			results = append(results, hit)
			if q.Limit != nil && len(results) >= *q.Limit {
				return errEnough
			}
			if q.FilesOnly {
				break
			}
		}
		return nil
	}
	for _, root := range roots {
		clean := strings.TrimPrefix(path.Clean("/"+root), "/")
		if root != "" && (root == ".." || strings.HasPrefix(path.Clean(root), "../")) {
			return nil, fmt.Errorf("path cannot escape directory: %s", root)
		}
		real, err := resolveIn(folder, clean, true)
		if err != nil {
			return nil, fmt.Errorf("%s: no such file or directory", root)
		}
		real = path.Join(folder, real)
		if info, err := os.Lstat(treeRoot + real); err == nil && !info.IsDir() {
			err = visit(clean)
			if err == errEnough {
				break
			}
			continue
		}
		err = walkTree(real, func(name string, entry fs.DirEntry) error {
			hidden := q.SkipHidden && strings.HasPrefix(path.Base(name), ".")
			if hidden || skipped[path.Join(clean, name)] {
				if entry.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			if !entry.Type().IsRegular() {
				return nil
			}
			return visit(path.Join(clean, name))
		})
		if err == errEnough {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return results, nil
}

func searchIn(data []byte, pattern *regexp.Regexp, multiline bool) []found {
	var hits []found
	if multiline {
		for _, span := range pattern.FindAllIndex(data, -1) {
			start := bytes.LastIndexByte(data[:span[0]], '\n') + 1
			end := len(data)
			if i := bytes.IndexByte(data[span[1]:], '\n'); i >= 0 {
				end = span[1] + i + 1
			}
			hits = append(hits, found{
				Line: bytes.Count(data[:start], []byte("\n")) + 1, Offset: start,
				Text:    text(data[start:end]),
				Matches: []submatch{{text(data[span[0]:span[1]]), span[0] - start, span[1] - start}},
			})
		}
		return hits
	}
	offset, number := 0, 0
	for len(data) > 0 {
		number++
		line, rest := data, []byte(nil)
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line, rest = data[:i+1], data[i+1:]
		}
		spans := pattern.FindAllIndex(bytes.TrimSuffix(line, []byte("\n")), -1)
		if len(spans) > 0 {
			hit := found{Line: number, Offset: offset, Text: text(line)}
			for _, span := range spans {
				hit.Matches = append(hit.Matches, submatch{text(line[span[0]:span[1]]), span[0], span[1]})
			}
			hits = append(hits, hit)
		}
		offset += len(line)
		data = rest
	}
	return hits
}

func text(data []byte) string {
	if utf8.Valid(data) {
		return string(data)
	}
	return strings.ToValidUTF8(string(data), "\uFFFD")
}

// askIgnores lists a tree, and what its files of those names say.
func askIgnores(q question) (any, error) {
	ignores := map[string]string{}
	paths := []string{}
	wanted := map[string]bool{}
	for _, name := range q.Names {
		wanted[name] = true
	}
	err := walkTree(q.Root, func(name string, entry fs.DirEntry) error {
		if entry.IsDir() {
			if path.Base(name) == ".git" {
				return fs.SkipDir
			}
			name += "/"
		}
		paths = append(paths, name)
		if wanted[path.Base(name)] && entry.Type().IsRegular() {
			data, err := os.ReadFile(path.Join(treeRoot, q.Root, name))
			if err != nil {
				return err
			}
			ignores[name] = string(data)
		}
		return nil
	})
	sort.Strings(paths)
	_, missing := os.Lstat(path.Join(treeRoot, q.Root, ".git"))
	return map[string]any{"ignores": ignores, "paths": paths, "git": missing == nil}, err
}
