"""Huey on Redis."""

from __future__ import annotations

from benchmarks.site import Site
from benchmarks.systems.base import System


class Huey(System):
    name = "huey"
    title = "Huey"
    settings = "8 worker processes (2 are slower), blocking pop, no periodic tasks: at most once"
    app = "benchmarks.apps.huey_app"
    packages = ("huey", "redis", "hiredis")
    rate = 2000

    def workers(self) -> list[list[str]]:
        options = ["--worker-type=process", "--workers=8", "--no-periodic", "--quiet"]
        return [["python", "-m", "huey.bin.huey_consumer", f"{self.app}.huey", *options]]

    def remaining(self, site: Site) -> int:
        """What is still in the list: eight that were popped may be in work when it reaches zero."""
        return int(site.redis.llen("huey.redis.bench"))
