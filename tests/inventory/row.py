"""One row of the inventory."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class How(str, Enum):
    """What Celeriac makes of a name."""

    HONOURED = "honoured"
    """By code of Celeriac's own, tested."""
    CELERY = "Celery's own"
    """Celery's own code does it, unchanged; the reason says which."""
    REFUSED = "refused"
    """At start-up or at the call, with a message that names the way out."""
    DIFFERENT = "different"
    """On purpose; the reason says how and why."""


class Row(NamedTuple):
    """What is known of one name."""

    how: How
    why: str
    test: str
    """``file::function`` under tests/, or empty where the reason is enough."""


Section = dict[str, Row]


def honoured(names: str, test: str, why: str = "") -> Section:
    """These names are honoured, as the test shows."""
    return _rows(names, Row(How.HONOURED, why, test))


def celery(names: str, why: str, test: str = "") -> Section:
    """Celery's own code handles these."""
    return _rows(names, Row(How.CELERY, why, test))


def refused(names: str, why: str, test: str) -> Section:
    """These are refused."""
    return _rows(names, Row(How.REFUSED, why, test))


def different(names: str, why: str, test: str = "") -> Section:
    """These mean something else, or nothing."""
    return _rows(names, Row(How.DIFFERENT, why, test))


def _rows(names: str, row: Row) -> Section:
    return {name.replace("~", " "): row for name in names.split()}


def merged(*parts: Section) -> Section:
    """One section of several parts.  No name may be in two."""
    found: Section = {}
    for part in parts:
        twice = found.keys() & part.keys()
        if twice:
            raise ValueError(f"in the inventory twice: {', '.join(sorted(twice))}")
        found |= part
    return found
