"""Schemas that others publish, to hold our reports against (`NOTICE.md` says whose they are)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from jsonschema import Draft4Validator
from xmlschema import XMLSchema

_HERE = Path(__file__).parent


@cache
def sarif_schema() -> Draft4Validator:
    """The validator of SARIF 2.1.0, errata 01."""
    return Draft4Validator(json.loads((_HERE / "sarif-schema-2.1.0.json").read_text("utf-8")))


@cache
def junit_schema() -> XMLSchema:
    """The schema of JUnit reports that Jenkins takes."""
    return XMLSchema(_HERE / "junit-10.xsd")
