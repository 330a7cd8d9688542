"""Where the rules of the checks lie that hooks share with the pipeline's stages.

Found as files: importing the stages would import Dagger's client, which a hook needs for nothing.
"""

from __future__ import annotations

from pathlib import Path

import buildonce

_STAGES = Path(buildonce.__file__).parent / "stages"


def gitleaks_rules() -> Path:
    """The configuration of gitleaks: its own rules and ours."""
    return _STAGES / "gitleaks.toml"


def semgrep_rules() -> list[Path]:
    """The folders of rules that semgrep is given."""
    return [_STAGES / "rules"]
