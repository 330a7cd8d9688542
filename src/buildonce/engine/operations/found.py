"""What a question about files found: lines of a search, and what is at a path."""

from __future__ import annotations

from buildonce.engine.engine import Engine
from buildonce.engine.inspection import Found, Match, There
from buildonce.engine.operations import operation


@operation("Stat.name")
async def stat_name(engine: Engine, self: There) -> str:
    return self.name


@operation("Stat.size")
async def stat_size(engine: Engine, self: There) -> int:
    return self.size


@operation("Stat.permissions")
async def stat_permissions(engine: Engine, self: There) -> int:
    return self.permissions


@operation("Stat.fileType")
async def stat_kind(engine: Engine, self: There) -> str:
    return self.kind


@operation("SearchResult.filePath")
async def found_path(engine: Engine, self: Found) -> str:
    return self.path


@operation("SearchResult.lineNumber")
async def found_line(engine: Engine, self: Found) -> int:
    return self.line


@operation("SearchResult.absoluteOffset")
async def found_offset(engine: Engine, self: Found) -> int:
    return self.offset


@operation("SearchResult.matchedLines")
async def found_text(engine: Engine, self: Found) -> str:
    return self.text


@operation("SearchResult.submatches")
async def found_matches(engine: Engine, self: Found) -> list[Match]:
    return list(self.matches)


@operation("SearchSubmatch.text")
async def match_text(engine: Engine, self: Match) -> str:
    return self.text


@operation("SearchSubmatch.start")
async def match_start(engine: Engine, self: Match) -> int:
    return self.start


@operation("SearchSubmatch.end")
async def match_end(engine: Engine, self: Match) -> int:
    return self.end
