package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// readFiles prints files, each behind its size. Relative names are the working directory's.
func readFiles(names []string) error {
	for _, name := range names {
		if err := readFile(name); err != nil {
			return err
		}
	}
	return nil
}

func readFile(name string) error {
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		_, err = fmt.Println(-1)
		return err
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		_, err = fmt.Println(-1)
		return err
	}
	if _, err := fmt.Println(info.Size()); err != nil {
		return err
	}
	copied, err := io.CopyN(os.Stdout, file, info.Size())
	if err == nil && copied != info.Size() {
		err = io.ErrUnexpectedEOF
	}
	return err
}
