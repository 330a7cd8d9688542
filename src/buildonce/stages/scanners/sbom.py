"""Runs in the container of cyclonedx-bom: makes or takes a CycloneDX document, and checks it.

    python3 sbom.py environment /app/venv/bin/python NAME /reports/python.cdx.json
    python3 sbom.py document /in/syft.json NAME /reports/image.cdx.json

What is written is the same for the same packages: no serial number, no time, nothing in the order
in which files happened to be found. Ends with 3 when the document is not valid; then the errors are
on its standard output, one a line.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

INVALID = 3
_SHOWN = 20

# Run by the Python of the environment: what each package says of its licence in words of its own.
_LICENCES = """
import importlib.metadata, json
said = {d.metadata["Name"]: d.metadata.get("License") for d in importlib.metadata.distributions()}
print(json.dumps(said))
"""
_LONGEST_NAME = 200  # more is the text of a licence, and no name


def normalise(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The document without what differs between two runs, sorted."""
    document = {key: value for key, value in document.items() if key != "serialNumber"}
    metadata = dict(document.get("metadata") or {})
    metadata.pop("timestamp", None)
    root = dict(metadata.get("component") or {"type": "application"})
    # Tools put an archive's digest or path there, which is not that of what is released.
    root.pop("version", None)
    old = root.get("bom-ref")
    root |= {"name": name, "bom-ref": name}
    document["metadata"] = {**metadata, "component": root}
    document["components"] = sorted(document.get("components") or [], key=_component)

    def renamed(ref: str) -> str:
        return name if ref == old else ref

    document["dependencies"] = sorted(
        (
            {
                **entry,
                "ref": renamed(entry["ref"]),
                **(
                    {"dependsOn": sorted({renamed(ref) for ref in entry["dependsOn"]})}
                    if "dependsOn" in entry
                    else {}
                ),
            }
            for entry in document.get("dependencies") or []
        ),
        key=lambda entry: entry["ref"],
    )
    return document


def named(document: dict[str, Any], said: dict[str, str | None]) -> dict[str, Any]:
    """The document with licences that cyclonedx-py leaves out: what is no SPDX identifier.

    Args:
        document: as cyclonedx-py writes it.
        said: the licence that each package names, by the package's name.
    """
    for component in document.get("components") or []:
        text = " ".join((said.get(component.get("name")) or "").split())
        if text not in ("", "UNKNOWN") and len(text) <= _LONGEST_NAME:
            licence = {"license": {"name": text, "acknowledgement": "declared"}}
            component.setdefault("licenses", [licence])
    return document


def _component(component: dict[str, Any]) -> tuple[str, str, str, str]:
    keys = ("purl", "name", "version", "bom-ref")
    first, second, third, fourth = (str(component.get(key, "")) for key in keys)
    return first, second, third, fourth


def _errors(text: str) -> list[str]:
    """What the CycloneDX 1.6 schema says against it; nothing here uses the network."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text, all_errors=True)
    return [" ".join(str(error.data).split())[:300] for error in found or ()]


def main(arguments: list[str]) -> int:
    kind, given, name, output = arguments
    if kind == "environment":
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "raw.json"
            options = ["--sv", "1.6", "--of", "JSON", "--output-reproducible", "-o", str(raw)]
            done = subprocess.run(["cyclonedx-py", "environment", *options, given], check=False)
            if done.returncode != 0:
                return done.returncode
            asked = [given, "-c", _LICENCES]
            said = subprocess.run(asked, check=True, capture_output=True).stdout
            document = named(json.loads(raw.read_bytes()), json.loads(said))
    else:
        document = json.loads(Path(given).read_bytes())
    text = json.dumps(normalise(document, name), indent=1, sort_keys=True, ensure_ascii=False)
    Path(output).write_text(f"{text}\n", encoding="utf-8")
    errors = _errors(text)
    print("\n".join(errors[:_SHOWN]))
    return INVALID if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
