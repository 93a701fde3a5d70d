"""Deletes what has outlived its time, in bounded batches."""

from __future__ import annotations

from celeriac.postgres_store import PostgresStore
from celeriac.postgres_store.statements import statements
from celeriac.postgres_store.store import Call

DONE_TTL = 86_400.0
"""Seconds that a chord is remembered as done.  A duplicate of a member later than this would count anew, into a chord
that never completes."""


def expire(store: PostgresStore, ttl: float, limit: int) -> int:
    """Delete up to ``limit`` records that are ``ttl`` seconds old; return how many."""
    sql = statements(__package__ or "", "expire.sql", store.options.schema)
    store.rows(Call(sql["waiters"]))
    if not store.value(Call(sql["anything_old"], (ttl, DONE_TTL))):
        return 0
    deleted = 0
    for kind in ("results", "groups"):
        deleted += int(store.value(Call(sql[kind], (ttl, limit - deleted))))
    for done, age in ((True, DONE_TTL), (False, ttl)):
        deleted += int(store.value(Call(sql["parts"], (done, age, limit, limit - deleted))))
        deleted += int(store.value(Call(sql["chords"], (done, age, limit - deleted))))
    return deleted
