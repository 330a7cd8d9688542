"""Known vulnerabilities: the database, its checks, and which of them a package has.

    database = open_database(config.advisories, near=config.path)     # checked, or an error
    for found in vulnerabilities(sbom, database):
        print(found.id, found.package.installed, found.severity, found.fixed)

Nothing here needs a container, and nothing but `update` uses the network.
"""

from buildonce.advisories.configured import open_database, place
from buildonce.advisories.database import BadDatabase, Database, NoAdvisories
from buildonce.advisories.matching import Vulnerability, vulnerabilities
from buildonce.advisories.packages import SbomPackage, SbomUnreadable

__all__ = [
    "BadDatabase",
    "Database",
    "NoAdvisories",
    "SbomPackage",
    "SbomUnreadable",
    "Vulnerability",
    "open_database",
    "place",
    "vulnerabilities",
]
