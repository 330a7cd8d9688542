"""`ci/pipeline.toml`, read into typed values; a mistake in it names its file, line, key and remedy.

    config = Config.load("ci/pipeline.toml")
    config.project.name                        # "dashboard"
    config.stages["commit"].budget             # timedelta(minutes=5)
    config.environments["production"].url      # "http://127.0.0.1:8103"

A profile is a set of values laid over the tables, for a machine that differs:
`[profiles.offline.images]` replaces keys of `[images]` when `BUILDONCE_PROFILE=offline`. Several
are separated by commas.
"""

from buildonce.config.base import parse_duration
from buildonce.config.environments import EnvironmentConfig
from buildonce.config.mistakes import ConfigError
from buildonce.config.models import Config, ProjectConfig, StageConfig
from buildonce.config.profiles import PROFILE_VARIABLE
from buildonce.config.waivers import WaiverConfig

__all__ = [
    "PROFILE_VARIABLE",
    "Config",
    "ConfigError",
    "EnvironmentConfig",
    "ProjectConfig",
    "StageConfig",
    "WaiverConfig",
    "parse_duration",
]
