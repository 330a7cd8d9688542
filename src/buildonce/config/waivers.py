"""`[[waivers]]`: findings that the project accepts for a time."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field, field_validator

from buildonce.config.base import Table

_Text = Annotated[str, Field(min_length=1)]


class WaiverConfig(Table):
    """One accepted finding; `buildonce.stages.Waiver` says what each key means."""

    check: _Text
    id: _Text
    reason: str
    expires: date
    path: _Text | None = None

    @field_validator("check")
    @classmethod
    def _check_is_a_name(cls, check: str) -> str:
        if not check.isidentifier():
            raise ValueError("not the name of a check (a Python function)")
        return check

    @field_validator("reason")
    @classmethod
    def _reason_says_something(cls, reason: str) -> str:
        if len(reason.strip()) < 8:
            raise ValueError("say in a few words why this is accepted")
        return reason.strip()

    @field_validator("expires", mode="before")
    @classmethod
    def _last_day(cls, value: object) -> object:
        try:
            # A moment of TOML is a `date` too, for Python: only whole days are meant.
            day = date.fromisoformat(value) if isinstance(value, str) else value
        except ValueError:
            day = None
        if type(day) is not date:
            raise ValueError("a day such as 2027-01-31 is wanted")
        return day
