"""Celery on Redis: prefork, and threads."""

from __future__ import annotations

from typing import ClassVar

from benchmarks import envelopes
from benchmarks.site import Site
from benchmarks.systems.base import Part, System, part

QUEUE = "celery"
BATCH = 10_000


class CeleryMessages(System):
    """What all share who speak Celery's protocol: a backlog is one message of theirs, copied under new ids."""

    isolated = False
    most_scheduled: ClassVar[int] = 1_000_000
    """How many scheduled messages it can be given within a benchmark's patience."""

    def preload(self, site: Site, count: int) -> None:
        self.fill(site, self.capture(site, part("noop", 1)), count, None)

    def capture(self, site: Site, message: Part) -> bytes:
        """Send a message and take it back before any worker runs; return its envelope."""
        self.produce(site, "each", [message])
        envelope = site.redis.rpop(QUEUE)
        assert isinstance(envelope, bytes)
        return envelope

    def fill(self, site: Site, envelope: bytes, count: int, due: float | None) -> None:
        """Send ``count`` copies.  Where there is no schedule in the broker, all are in the queue at once."""
        for batch in envelopes.copies(envelope, count, BATCH):
            site.redis.lpush(QUEUE, *batch)

    def ready(self, site: Site) -> int:
        """Messages that no worker has taken."""
        return int(site.redis.llen(QUEUE))


class CeleryPrefork(CeleryMessages):
    name = "celery"
    title = "Celery prefork"
    settings = "--pool=prefork --concurrency=2, no gossip, mingle or heartbeat; prefetch multiplier 4 (its default)"
    app = "benchmarks.apps.celery_app"
    packages = ("celery", "kombu", "redis", "hiredis")
    rate = 500
    most_scheduled = 20_000

    def workers(self) -> list[list[str]]:
        return [self._command("--pool=prefork", "--concurrency=2")]

    def remaining(self, site: Site) -> int:
        """Waiting, and delivered without being acknowledged.

        For an instant between the two a message is in neither, so zero counts only when it is seen twice.
        """
        with site.redis.pipeline(transaction=True) as pipe:
            pipe.llen(QUEUE)
            pipe.hlen("unacked")
            return sum(pipe.execute())

    def _command(self, *options: str) -> list[str]:
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
        return ["celery", "-A", self.app, "worker", *options, *quiet]


class CeleryThreads(CeleryPrefork):
    name = "celery-threads"
    title = "Celery threads"
    settings = "two workers with --pool=threads --concurrency=8, otherwise as prefork"
    rate = 1000

    def workers(self) -> list[list[str]]:
        return [self._command("--pool=threads", "--concurrency=8", "-n", f"{name}@%h") for name in ("one", "two")]
