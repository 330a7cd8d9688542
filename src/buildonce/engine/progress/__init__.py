"""What a run shows while it works.

`model.py` holds what is known as plain data; `plain.py` and `live.py` are two views of it: lines
for files and CI, a live tree for terminals; `text.py` makes foreign text safe to show.
"""
