"""RQ on Redis."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.site import Site
from benchmarks.systems.base import System


class RQ(System):
    name = "rq"
    title = "RQ"
    settings = "worker-pool of 4 SimpleWorkers (no fork per job; 2 are slower)"
    app = "benchmarks.apps.rq_app"
    packages = ("rq", "redis", "hiredis")
    rate = 300

    def workers(self) -> list[list[str]]:
        options = ["--num-workers", "4", "--worker-class", "rq.SimpleWorker", "--quiet"]
        return [["rq", "worker-pool", "bench", *options]]

    def environment(self, site: Site) -> Mapping[str, str]:
        return {"RQ_REDIS_URL": site.url}

    def remaining(self, site: Site) -> int:
        """Waiting, taken, and started."""
        with site.redis.pipeline(transaction=True) as pipe:
            pipe.llen("rq:queue:bench")
            pipe.llen("rq:queue:bench:intermediate")
            pipe.zcard("rq:wip:bench")
            return sum(pipe.execute())
