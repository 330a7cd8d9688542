"""The files that a run leaves under `out/`."""

from __future__ import annotations

import json
from pathlib import Path

from buildonce.report.junit import merge_junit
from buildonce.report.record import RunRecord

JUNIT, SUMMARY, DEBUG = "junit.xml", "summary.json", "debug.log"


def clear_reports(out: Path) -> None:
    """Remove what an earlier run reported to this folder, and nothing else that may lie there."""
    out.mkdir(exist_ok=True)
    try:
        earlier = json.loads((out / SUMMARY).read_text(encoding="utf-8"))["files"]
        names = [name.removeprefix(f"{out.name}/") for name in earlier]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        names = []  # somebody else's file, or none
    for name in [*names, SUMMARY, JUNIT, DEBUG]:
        file = (out / name).resolve()
        if file.is_relative_to(out.resolve()) and file.is_file():
            file.unlink()


def write_reports(record: RunRecord, out: Path) -> None:
    """Write `summary.json` and `junit.xml`, and name all files in the record.

    Args:
        record: the run; files of its checks are relative to the folder that holds `out`.
        out: where to.
    """
    reports: dict[tuple[str, str], str] = {}
    for stage in record.stages:
        for check in stage.checks:
            record.files += check.files
            for name in check.files:
                if Path(name).name == JUNIT:
                    file = out.parent / name
                    text = file.read_text(encoding="utf-8", errors="replace")
                    reports[stage.name, check.name] = text
    (out / JUNIT).write_text(merge_junit(record, reports), encoding="utf-8")
    names = [JUNIT, SUMMARY, *([DEBUG] if (out / DEBUG).exists() else [])]
    record.files += [f"{out.name}/{name}" for name in names]
    text = json.dumps(record.to_json(), indent=2, ensure_ascii=False)
    (out / SUMMARY).write_text(text + "\n", encoding="utf-8", errors="replace")
