"""streaQ."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.site import Site
from benchmarks.systems.base import System


class Streaq(System):
    name = "streaq"
    title = "streaQ"
    settings = "2 processes, uvloop, 32 tasks at a time, silent, COREDIS_OPTIMIZED"
    app = "benchmarks.apps.streaq_app"
    packages = ("streaq", "coredis", "hiredis", "uvloop")
    rate = 1500

    def workers(self) -> list[list[str]]:
        return [["streaq", "run", f"{self.app}:worker", "--workers", "2"]]

    def environment(self, site: Site) -> Mapping[str, str]:
        return {"COREDIS_OPTIMIZED": "true"}

    def remaining(self, site: Site) -> int:
        """An entry is deleted from the stream when its task is finished."""
        return int(site.redis.xlen("streaq:bench:queues:normal"))
