"""Names of the lanes that limited messages wait in: all messages of a lane are under the same limits, with the same weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

DIGEST = 8
"""A name begins with so many hexadecimal digits of a digest, so that names are spread evenly."""


class Claim(NamedTuple):
    """What one message needs of one limit."""

    limit: str
    """The limit's name."""
    key: str
    """Its key; empty for a limit that has none."""
    weight: int


def name_of(claims: Sequence[Claim]) -> str:
    """The lane of messages with these claims."""
    text = json.dumps([list(claim) for claim in claims], separators=(",", ":"))
    return f"{hashlib.sha256(text.encode()).hexdigest()[:DIGEST]} {text}"


@lru_cache(maxsize=4096)
def claims_of(name: str) -> tuple[Claim, ...]:
    """What the messages of a lane need; nothing where its name is none of ours."""
    try:
        return tuple(Claim(str(limit), str(key), int(weight)) for limit, key, weight in json.loads(name[DIGEST + 1 :]))
    except (ValueError, TypeError):
        return ()
