"""One repository with planted faults and harmless look-alikes, made anew by each run.

    make planted                      # through the real stages: found, missed, false alarms

Secrets are put together from pieces when it is made: none is in a file of this project. Code and
templates are in `code/` and `infrastructure/`, as text in which `# bad: …` says what is to be
found on that line; what has no such comment is harmless. So is all of `harmless/`, which is full of
the words that a search for secrets looks for.
"""
