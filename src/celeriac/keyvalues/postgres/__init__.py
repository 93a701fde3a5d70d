"""The contract of :mod:`celeriac.keyvalue`, in a Celeriac schema of a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celeriac.keyvalue import ABSENT, Claim, Entry, KeyValueStore, Namespace
from celeriac.outcome import KeyWrite
from celeriac.postgres_store import PostgresOptions, PostgresStore
from celeriac.postgres_store.arrays import Texts
from celeriac.postgres_store.keys import claim_columns, write_columns
from celeriac.postgres_store.statements import statements
from celeriac.postgres_store.store import Call


class PostgresKeyValues(KeyValueStore):
    """Keys and values in one schema, beside the queues or the results.

    Raises:
        ConfigurationError: the URL or an option cannot work.  The server is looked at when it is first used.
    """

    def __init__(self, options: PostgresOptions) -> None:
        self.database = PostgresStore(options)
        self.url = self.database.url
        self._sql = statements(__package__ or "", "keys.sql", options.schema)

    @property
    def round_trips(self) -> int:  # type: ignore[override]
        """Round trips so far."""
        return self.database.round_trips

    def read(self, space: Namespace, names: Sequence[str]) -> tuple[float, list[Entry | None]]:
        """See :meth:`KeyValueStore.read`."""
        rows = self.database.rows(Call(self._sql["read"], (Texts(names), space.name)))
        found: list[Entry | None] = [None] * len(names)
        now = 0.0
        for place, value, version, moment in rows:
            if place:
                found[place - 1] = Entry(value, version)
            else:
                now = moment
        return now, found

    def write(self, space: Namespace, name: str, value: bytes | None, *, ttl: float | None, version: int) -> int:
        """See :meth:`KeyValueStore.write`."""
        given: dict[str, Any] = {"space": space.name, "name": name, "version": version, "value": value, "ttl": ttl}
        if value is None:
            statement = "is_absent" if version == ABSENT else "drop"
        else:
            statement = "create" if version == ABSENT else "change"
        rows = self.database.rows(Call(self._sql[statement], given))
        return int(rows[0][0]) if rows else 0

    def claim(self, claim: Claim) -> bytes | None:
        """See :meth:`KeyValueStore.claim`: one round trip."""
        rows = self.database.rows(Call(self._sql["claim"], claim_columns([claim])))
        return rows[0][0] if rows else None

    def apply(self, writes: Sequence[KeyWrite]) -> None:
        """See :meth:`KeyValueStore.apply`: one round trip."""
        if writes:
            self.database.rows(Call(self._sql["apply"], write_columns(writes)))

    def names(self, space: Namespace) -> list[str]:
        """See :meth:`KeyValueStore.names`."""
        assert space.listed, f"{space.name} is not listed"
        return [name for (name,) in self.database.rows(Call(self._sql["names"], (space.name,)))]

    def expire(self, limit: int = 1000) -> int:
        """See :meth:`KeyValueStore.expire`."""
        return int(self.database.value(Call(self._sql["expire"], (limit,))))

    def close(self) -> None:
        """See :meth:`KeyValueStore.close`."""
        self.database.close()
