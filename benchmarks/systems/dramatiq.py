"""Dramatiq on Redis."""

from __future__ import annotations

from benchmarks.site import Site
from benchmarks.systems.base import System


class Dramatiq(System):
    name = "dramatiq"
    title = "Dramatiq"
    settings = "2 processes with 16 threads each, acknowledged late (as always)"
    app = "benchmarks.apps.dramatiq_app"
    packages = ("dramatiq", "redis", "hiredis")
    rate = 2000

    def workers(self) -> list[list[str]]:
        return [["dramatiq", self.app, "--processes", "2", "--threads", "16"]]

    def remaining(self, site: Site) -> int:
        """A message stays in this hash until it is acknowledged."""
        return int(site.redis.hlen("dramatiq:default.msgs"))
