"""arq."""

from __future__ import annotations

from benchmarks.site import Site
from benchmarks.systems.base import System


class Arq(System):
    name = "arq"
    title = "arq"
    settings = "2 processes, uvloop, 100 jobs at a time, polls every 10 ms"
    app = "benchmarks.apps.arq_app"
    packages = ("arq", "redis", "hiredis", "uvloop")
    rate = 500

    def workers(self) -> list[list[str]]:
        return [["arq", f"{self.app}.WorkerSettings", "--custom-log-dict", f"{self.app}.LOGGING"]] * 2

    def remaining(self, site: Site) -> int:
        """A job stays in the queue until it is finished."""
        return int(site.redis.zcard("arq:queue"))
