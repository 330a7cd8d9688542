"""The daemon's own cache, for programs that want to know its size or to empty it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

from buildonce.engine.buildkit.client import Usage
from buildonce.engine.engine import Engine
from buildonce.engine.errors import QueryFailed
from buildonce.engine.operations import operation

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(%|[kmgt]?i?b?)", re.IGNORECASE)
_UNITS = " kmgt"


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The engine that answers."""


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """The daemon's cache; its own rules of what to keep are the daemon's business."""


@dataclass(frozen=True, slots=True)
class CacheRecords:
    """What the cache held when it was asked."""

    records: tuple[Usage, ...]


@operation("Query.engine")
def engine_(engine: Engine, self: None) -> EngineInfo:
    return EngineInfo()


@operation("Engine.name")
async def name(engine: Engine, self: EngineInfo) -> str:
    return "buildonce"


@operation("Engine.clients")
async def clients(engine: Engine, self: EngineInfo) -> list[str]:
    return [engine.session.id]


@operation("Engine.localCache")
def local_cache(engine: Engine, self: EngineInfo) -> CacheInfo:
    return CacheInfo()


@operation(
    "EngineCache.maxUsedSpace",
    "EngineCache.minFreeSpace",
    "EngineCache.reservedSpace",
    "EngineCache.targetSpace",
)
async def limit(engine: Engine, self: CacheInfo) -> int:
    return 0  # as where no policy is set


@operation("EngineCache.entrySet")
async def entry_set(engine: Engine, self: CacheInfo, key: str = "") -> CacheRecords:
    return CacheRecords(tuple(await engine.client.disk_usage()))


@operation("EngineCache.prune")
async def prune(
    engine: Engine,
    self: CacheInfo,
    use_default_policy: bool = False,
    max_used_space: str = "",
    reserved_space: str = "",
    min_free_space: str = "",
    target_space: str = "",
) -> None:
    disk = shutil.disk_usage(engine.options.cache)
    kept = [_size(text, disk.total) for text in (max_used_space, reserved_space, target_space)]
    async for _ in engine.client.prune(all=not use_default_policy, keep_bytes=max(kept)):
        pass


def _size(text: str, total: int) -> int:
    """`200GB` or `80%` of the disk in bytes; an empty text is nothing."""
    if not text:
        return 0
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise QueryFailed(f"{text!r} is not a size: write it as 200GB or 80%")
    number, unit = float(found[1]), found[2].lower()
    if unit == "%":
        return int(total * number / 100)
    base = 1024 if "i" in unit else 1000
    return int(number * base ** _UNITS.index((unit[:1] or "b").replace("b", " ")))


@operation("EngineCacheEntrySet.entryCount")
async def entry_count(engine: Engine, self: CacheRecords) -> int:
    return len(self.records)


@operation("EngineCacheEntrySet.diskSpaceBytes")
async def set_size(engine: Engine, self: CacheRecords) -> int:
    return sum(record.size for record in self.records)


@operation("EngineCacheEntrySet.entries")
async def entries(engine: Engine, self: CacheRecords) -> list[Usage]:
    return list(self.records)


@operation("EngineCacheEntry.activelyUsed")
async def in_use(engine: Engine, self: Usage) -> bool:
    return self.in_use


@operation("EngineCacheEntry.diskSpaceBytes")
async def size(engine: Engine, self: Usage) -> int:
    return self.size


@operation("EngineCacheEntry.description")
async def description(engine: Engine, self: Usage) -> str:
    return self.description


@operation("EngineCacheEntry.recordType")
async def record_type(engine: Engine, self: Usage) -> str:
    return self.kind


@operation("EngineCacheEntry.recordTypes")
async def record_types(engine: Engine, self: Usage) -> list[str]:
    return [self.kind]


@operation("EngineCacheEntry.createdTimeUnixNano")
async def created(engine: Engine, self: Usage) -> int:
    return self.created


@operation("EngineCacheEntry.mostRecentUseTimeUnixNano")
async def used(engine: Engine, self: Usage) -> int:
    return self.used


@operation("EngineCacheEntry.dagqlCall")
async def call(engine: Engine, self: Usage) -> str:
    return ""  # a record of BuildKit's does not know which question it answers
