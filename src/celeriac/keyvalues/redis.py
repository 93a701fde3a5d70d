"""The contract of :mod:`celeriac.keyvalue`, on Redis."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.brokers.redis.connection import RedisConnection
from celeriac.brokers.redis.options import RedisOptions
from celeriac.brokers.redis.settlement import key_arguments, milliseconds
from celeriac.keyvalue import Claim, Entry, KeyValueStore, Namespace
from celeriac.outcome import KeyWrite

SCRIPTS = ("kv_read", "kv_write", "kv_names", "kv_claim", "kv_apply")


class RedisKeyValues(KeyValueStore):
    """Keys and values in Redis, beside the queues."""

    def __init__(self, options: RedisOptions) -> None:
        """Connects at first use.

        Args:
            options: where the server is; its ``key_prefix`` is put before the keys.
        """
        self.url = options.safe_url()
        self.connection = RedisConnection(options, SCRIPTS)
        self._prefix = f"{options.key_prefix}celeriac:"
        self.place = (self.connection.address, self.connection.database, options.key_prefix)
        """What a broker compares with its own to see whether these keys lie beside its queues."""

    @property
    def round_trips(self) -> int:  # type: ignore[override]
        """Round trips so far."""
        return self.connection.round_trips

    def key(self, space: Namespace, name: str) -> str:
        """The Redis key of an entry."""
        return f"{self._prefix}kv:{space.name}:{name}"

    def read(self, space: Namespace, names: Sequence[str]) -> tuple[float, list[Entry | None]]:
        """See :meth:`KeyValueStore.read`."""
        micros, *found = self.connection.run("kv_read", [self.key(space, name) for name in names], [])
        return int(micros) / 1e6, [_entry(raw) for raw in found]

    def write(self, space: Namespace, name: str, value: bytes | None, *, ttl: float | None, version: int) -> int:
        """See :meth:`KeyValueStore.write`."""
        keys = [self.key(space, name), f"{self._prefix}kv-version"]
        if space.listed:
            keys.append(f"{self._prefix}kv-names:{space.name}")
        arguments = [version, int(value is not None), value or b"", milliseconds(ttl), name]
        return int(self.connection.run("kv_write", keys, arguments))

    def claim(self, claim: Claim) -> bytes | None:
        """See :meth:`KeyValueStore.claim`: one round trip."""
        keys = [self.key(Namespace(claim.space), claim.name), f"{self._prefix}kv-version"]
        arguments = [claim.holder, claim.data, milliseconds(claim.ttl), int(claim.replace)]
        found: bytes | None = self.connection.run("kv_claim", keys, arguments)
        return found

    def apply(self, writes: Sequence[KeyWrite]) -> None:
        """See :meth:`KeyValueStore.apply`: one round trip."""
        arguments = [each for write in writes for each in key_arguments(self._own_key, write)]
        if arguments:
            self.connection.run("kv_apply", [f"{self._prefix}kv-version"], arguments)

    def _own_key(self, *parts: str) -> str:
        return self._prefix + ":".join(parts)

    def names(self, space: Namespace) -> list[str]:
        """See :meth:`KeyValueStore.names`."""
        assert space.listed, f"{space.name} is not listed"
        keys = [f"{self._prefix}kv-names:{space.name}"]
        return sorted(name.decode() for name in self.connection.run("kv_names", keys, [self.key(space, "")]))

    def expire(self, limit: int = 1000) -> int:
        """See :meth:`KeyValueStore.expire`: Redis does."""
        return 0

    def close(self) -> None:
        """See :meth:`KeyValueStore.close`."""
        self.connection.close()


def _entry(raw: bytes | None) -> Entry | None:
    if raw is None:
        return None
    version, _, value = raw.partition(b":")
    return Entry(value, int(version))
