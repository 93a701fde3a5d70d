"""SAQ on Redis."""

from __future__ import annotations

from benchmarks.site import Site
from benchmarks.systems.base import System


class SAQ(System):
    name = "saq"
    title = "SAQ"
    settings = "2 processes, uvloop, 100 jobs at a time"
    app = "benchmarks.apps.saq_app"
    packages = ("saq", "redis", "hiredis", "uvloop")
    rate = 1500

    def workers(self) -> list[list[str]]:
        return [["saq", f"{self.app}.settings", "--workers", "2", "--quiet"]]

    def remaining(self, site: Site) -> int:
        """Every job that is not finished."""
        return int(site.redis.zcard("saq:default:incomplete"))
