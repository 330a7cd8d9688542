"""A small directory that tests ask about."""

from __future__ import annotations

import dagger

ALL = [".hidden", "a.txt", "empty/", "sub/", "sub/b.txt", "sub/deep/", "sub/deep/c.py"]


def sample(client: dagger.Client) -> dagger.Directory:
    """Two text files, a program, a hidden file and an empty folder: `ALL`."""
    return (
        client.directory()
        .with_new_file("a.txt", "alpha\n")
        .with_new_file("sub/b.txt", "beta\n")
        .with_new_file("sub/deep/c.py", "print(1)\n")
        .with_new_file(".hidden", "h")
        .with_new_directory("empty", permissions=0o755)
    )
