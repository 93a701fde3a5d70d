"""What the installed Celery has."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import celery
import click
from celery import Celery, Task, canvas, signals, states
from celery.app import autoretry
from celery.app.amqp import AMQP
from celery.app.defaults import DEFAULTS
from celery.bin.celery import celery as command
from celery.utils.dispatch import Signal
from celery.worker.control import Panel

INTERNAL = {"self", "producer", "name", "message", "fun", "options", "kwargs", "args", "now", "timezone", "origin"}
"""Parameters that are not options of a call or a task."""


def settings() -> set[str]:
    """Every setting."""
    return set(DEFAULTS)


def command_options() -> set[str]:
    """Every command with each of its options, as ``command --option``."""
    return {*_options("", command), *_commands("", command)}


def _commands(prefix: str, group: click.Group) -> Iterator[str]:
    for name, each in group.commands.items():
        if f"{prefix}{name}" == "worker":
            continue
        yield f"{prefix}{name}"
        yield from _options(f"{prefix}{name} ", each)
        if isinstance(each, click.Group):
            yield from _commands(f"{prefix}{name} ", each)


def worker_options() -> set[str]:
    """Every option of ``celery worker``."""
    return set(_options("", command.commands["worker"]))


def _options(prefix: str, of: click.Command) -> Iterator[str]:
    for parameter in of.params:
        if isinstance(parameter, click.Option):
            yield prefix + max(parameter.opts, key=len)


def task_options() -> set[str]:
    """Every option of ``@app.task``: attributes of tasks, arguments of the decorator, options of autoretry."""
    static = {name: inspect.getattr_static(Task, name) for name in dir(Task) if not name.startswith("_")}
    attributes = {n for n, value in static.items() if not callable(value) and not isinstance(value, classmethod)}
    decorator = set(inspect.signature(Celery._task_from_fun).parameters)  # noqa: SLF001 - task() takes **options
    retries = set(re.findall(r"options\.get\(\s*['\"](\w+)", inspect.getsource(autoretry)))
    found = (attributes | decorator | retries) - INTERNAL - {"app", "from_config", "request_stack", "request"}
    return found | {"name", "Request", "Strategy", "shared", "lazy"}


def call_options() -> set[str]:
    """Every option of ``apply_async`` and ``send_task``."""
    app = Celery(set_as_current=False)
    found = set()
    for called in (Task.apply_async, Celery.send_task, AMQP.as_task_v2, app.amqp.send_task_message):
        found |= set(inspect.signature(called).parameters)
    app.close()
    return found - INTERNAL | {"args", "kwargs", "priority", "mandatory", "immediate"}


def signal_names() -> set[str]:
    """Every signal."""
    return {name for name, value in vars(signals).items() if isinstance(value, Signal)}


def control_commands() -> set[str]:
    """Every remote control command and its aliases."""
    return {name for name, called in Panel.data.items() if called.__module__ == "celery.worker.control"}


def canvas_names() -> set[str]:
    """Every primitive of the canvas, and every method of a task that makes or sends signatures."""
    methods = {
        name for name, value in vars(Task).items()
        if not name.startswith("_") and callable(inspect.getattr_static(Task, name)) and not isinstance(value, type)
    }  # fmt: skip
    return set(canvas.__all__) | {f"Task.{name}" for name in methods} | {"StampingVisitor"}


def events() -> set[str]:
    """Every kind of event that Celery's code sends."""
    found: set[str] = set()
    for path in Path(celery.__file__).parent.rglob("*.py"):
        found |= set(re.findall(r"""['"]((?:task|worker)-[a-z-]+)['"]""", path.read_text()))
    return found


def state_names() -> set[str]:
    """Every state of a task."""
    return set(states.ALL_STATES)
