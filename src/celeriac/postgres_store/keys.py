"""Held keys as arguments of the functions in ``48_keys.sql``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celeriac.keyvalue import Claim
from celeriac.outcome import KeyWrite
from celeriac.postgres_store.arrays import Booleans, Byteas, Floats, Texts


def claim_columns(claims: Sequence[Claim | None]) -> tuple[Any, ...]:
    """Arguments of ``claim_keys``; where there is no claim they are NULL."""
    return (
        Texts(claim and claim.space for claim in claims),
        Texts(claim and claim.name for claim in claims),
        Texts(claim and claim.holder for claim in claims),
        Byteas(claim and claim.data for claim in claims),
        Floats(claim and claim.ttl for claim in claims),
        Booleans(claim and claim.replace for claim in claims),
    )


def write_columns(writes: Sequence[KeyWrite]) -> tuple[Any, ...]:
    """Arguments of ``apply_keys``."""
    return (
        Texts(write.space for write in writes),
        Texts(write.name for write in writes),
        Texts(write.holder for write in writes),
        Byteas(write.value for write in writes),
        Floats(write.ttl for write in writes),
    )
