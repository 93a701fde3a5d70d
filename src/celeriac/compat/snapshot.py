"""The settings that sending needs, read once for as long as they do not change.

Looking a setting up in ``app.conf`` takes about 10 µs: several mappings are asked for several spellings of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from celeriac.compat import connect, connect_rabbitmq
from celeriac.compat.back_pressure import Terms, terms_of


class WatchedDict(dict[str, Any]):
    """A dict that counts its changes."""

    version = 0

    def _changed(self) -> None:
        self.version += 1

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._changed()

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._changed()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As of dict."""
        super().update(*args, **kwargs)
        self._changed()

    def pop(self, *args: Any) -> Any:
        """As of dict."""
        self._changed()
        return super().pop(*args)

    def clear(self) -> None:
        """As of dict."""
        super().clear()
        self._changed()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """As of dict."""
        self._changed()
        return super().setdefault(key, default)


class Snapshot(NamedTuple):
    """Settings of one moment."""

    always_eager: bool
    serializer: str
    compression: str | None
    delivery_mode: Any
    retry: bool
    retry_policy: dict[str, Any]
    terms: Terms
    sent_event: bool
    protocol: int
    inherit_priority: bool
    has_engine: bool
    """Whether there is an engine for the app's broker."""
    amqp: bool
    """Whether messages go as AMQP has them, and exchanges decide where to."""


def watch(conf: Any) -> None:
    """Notice changes of a loaded configuration from now on."""
    changes = conf.__dict__["changes"]
    if type(changes) is not WatchedDict:
        conf.__dict__["changes"] = watched = WatchedDict(changes)
        conf.maps[0] = watched


def snapshot(app: Any) -> Snapshot:
    """The app's settings as they are now."""
    conf = app._conf
    if conf is not None:
        cached = app.__dict__.get("_celeriac_snapshot")
        changes = conf.__dict__["changes"]
        if cached is not None and cached[0] is changes and cached[1] == changes.version and cached[2] == len(conf.maps):
            kept: Snapshot = cached[3]
            return kept
    return _renewed(app)


def _renewed(app: Any) -> Snapshot:
    conf = app.conf
    retry_policy = dict(conf.task_publish_retry_policy or {})
    taken = Snapshot(
        always_eager=bool(conf.task_always_eager),
        serializer=conf.task_serializer,
        compression=conf.task_compression,
        delivery_mode=conf.task_default_delivery_mode,
        retry=bool(conf.task_publish_retry),
        retry_policy=retry_policy,
        terms=terms_of(conf, retry_policy if conf.task_publish_retry else None),
        sent_event=bool(conf.task_send_sent_event),
        protocol=int(conf.task_protocol),
        inherit_priority=bool(conf.task_inherit_parent_priority),
        has_engine=connect.has_engine(connect.broker_url(app)),
        amqp=connect.scheme_of(connect.broker_url(app)) in connect_rabbitmq.SCHEMES,
    )
    loaded = app._conf
    # A source that is not a dict (Django's settings, a module) may change without our noticing: it is read each time.
    if loaded is not None and all(type(each) in (dict, WatchedDict) for each in loaded.maps):
        watch(loaded)
        changes = loaded.__dict__["changes"]
        app.__dict__["_celeriac_snapshot"] = (changes, changes.version, len(loaded.maps), taken)
    return taken
