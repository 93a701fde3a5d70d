"""Taskiq on Redis: streams with acknowledgement, and a list without."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.site import Site
from benchmarks.systems.base import System


class Taskiq(System):
    name = "taskiq"
    title = "Taskiq, streams"
    settings = "2 processes, uvloop, 100 tasks at a time, acknowledged late"
    app = "benchmarks.apps.taskiq_app"
    packages = ("taskiq", "taskiq-redis", "redis", "hiredis", "uvloop")
    rate = 2500

    def workers(self) -> list[list[str]]:
        options = ["--workers", "2", "--max-async-tasks", "100", "--log-level", "WARNING"]
        return [["taskiq", "worker", f"{self.app}:broker", *options]]

    def remaining(self, site: Site) -> int:
        """Entries that the group has not read, or not acknowledged."""
        groups = site.redis.xinfo_groups("taskiq")
        if not groups:
            return int(site.redis.xlen("taskiq"))
        group = groups[0]
        lag = group["lag"]
        return int((site.redis.xlen("taskiq") if lag is None else lag) + group["pending"])


class TaskiqList(Taskiq):
    name = "taskiq-list"
    title = "Taskiq, list"
    settings = "as with streams, but popped from a list: at most once"
    rate = 3000

    def environment(self, site: Site) -> Mapping[str, str]:
        return {"BENCH_VARIANT": "list"}

    def remaining(self, site: Site) -> int:
        """What is still in the list: up to 200 that were popped may be in work when it reaches zero."""
        return int(site.redis.llen("taskiq"))
