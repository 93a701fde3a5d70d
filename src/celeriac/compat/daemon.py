"""Runs a worker in the background (``--detach``), and several at once (``celeriac multi``)."""

from __future__ import annotations

import sys
from typing import Any

from celery.apps.multi import MultiParser, Node
from celery.bin.multi import MultiTool
from celery.bin.worker import detach as detach_program
from celery.utils.nodenames import node_format

from celeriac.version import __version__

ONLY_IN_FRONT = ("--detach", "-D")
"""What the command in the background is not given again."""

SETTLED = ("--uid", "--gid", "--workdir")
"""Options, with a value, that are in effect already when the process in the background starts: it may not be allowed to change
its user again, and a relative directory would be another one.
"""


def detach(
    app: Any,
    hostname: str,
    logfile: str | None,
    pidfile: str | None,
    *,
    uid: str | None,
    gid: str | None,
    umask: Any,
    executable: str | None,
) -> int:
    """Start this very command in the background; the exit code of the one in front."""
    argv = ["-m", "celeriac", *_in_background(sys.argv[1:])]
    code: int = detach_program(
        sys.executable, argv, logfile=logfile, pidfile=node_format(pidfile, hostname), uid=uid, gid=gid, umask=umask, app=app,
        executable=executable, hostname=hostname,
    )  # fmt: skip
    return code


def _in_background(words: list[str]) -> list[str]:
    kept, given = [], iter(words)
    for word in given:
        if word in SETTLED:
            next(given, None)
        elif word not in ONLY_IN_FRONT and not word.startswith(tuple(f"{option}=" for option in SETTLED)):
            kept.append(word)
    return kept


class CeleriacNode(Node):
    """A worker as ``multi`` starts it."""

    def _prepare_argv(self) -> tuple[str, ...]:
        command, *rest = super()._prepare_argv()
        return (command.replace("-m celery ", "-m celeriac ", 1), *rest)


class CeleriacParser(MultiParser):
    """Reads names of workers and their options."""

    Node = CeleriacNode


class Multi(MultiTool):
    """Celery's ``multi`` with this package's workers."""

    MultiParser = CeleriacParser
    splash_text = "celeriac multi v{version}"
    splash_context = {"version": __version__}  # noqa: RUF012 - as it is in the class that this one is made from


def run_multi(*, quiet: bool, no_color: bool) -> int:
    """Run ``celeriac multi`` with the words of the command line; the exit code."""
    words = sys.argv[1:]
    place = words.index("multi")
    # The app is an option of the whole command; multi wants it behind the names of the workers.
    tool = Multi(quiet=quiet, no_color=no_color)
    return int(tool.execute_from_commandline([*words[place:], *words[:place]]) or 0)
