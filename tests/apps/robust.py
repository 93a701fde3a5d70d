"""The app whose tasks misbehave towards the process that they run in."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

from celery import chord, group, shared_task, signals
from celery.result import allow_join_result

from tests.apps.survival import app, record, wait_for_file

__all__ = ["app"]


@shared_task
def echo(value=None):
    return value


@shared_task
def add(*numbers):
    return sum(numbers)


@shared_task
def total(numbers):
    return sum(numbers)


@shared_task
def size(*values, **named):
    return sum(len(str(value)) for value in (*values, *named.values()))


@shared_task
def make(size):
    """A large result."""
    return "x" * size


@shared_task
def fail_if(number, divisor):
    if number % divisor == 0:
        raise ValueError(number)
    return number


@shared_task
def count_error(request, error, traceback):
    record("error", request.id)


@shared_task
def pid():
    return os.getpid()


# -- errors ------------------------------------------------------------------------------------------------------------


class UnpicklableError(Exception):
    def __reduce__(self):
        raise TypeError("not to be pickled")


class KeywordOnlyError(Exception):
    def __init__(self, *, code):
        super().__init__()
        self.code = code


class ArglessError(Exception):
    """Its arguments are not what its constructor takes."""

    def __init__(self):
        super().__init__(1, 2, 3)


class EndOfAll(BaseException):
    """An error that is not even an Exception."""


class HostileError(Exception):
    args = property(lambda self: 1 / 0)

    def __str__(self):
        raise SystemExit("no text")


class HostileValue:
    """A value whose every method fails."""

    def __repr__(self):
        raise RecursionError("no text")

    __str__ = __repr__

    def __json__(self):
        raise KeyError("no JSON")

    def __reduce__(self):
        raise TypeError("no pickle")


def cyclic_cause():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def with_value():
    return ValueError(HostileValue(), {"a": object()}, lambda: 1)


ERRORS = {
    "unpicklable": UnpicklableError,
    "keyword only": lambda: KeywordOnlyError(code=3),
    "argless": ArglessError,
    "cyclic": cyclic_cause,
    "odd arguments": with_value,
    "hostile": HostileError,
    "base": EndOfAll,
    "generator exit": GeneratorExit,
    "interrupt": KeyboardInterrupt,
    "exit": lambda: SystemExit("bye"),
    "stop iteration": lambda: StopIteration(4),
    "os error": lambda: OSError(13, "no", "file"),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    "class": lambda: type("Local\nName", (Exception,), {})("dynamic"),
    "bytes": lambda: ValueError(b"\xff\xfe"),
    "surrogate": lambda: ValueError("\ud800"),
}


@shared_task
def fail_with(kind):
    error = ERRORS[kind]()
    raise error


@shared_task
def recurse(depth=0):
    return recurse(depth + 1)


# -- results -----------------------------------------------------------------------------------------------------------

RESULTS = {
    "object": object,
    "hostile": HostileValue,
    "lambda": lambda: lambda: 1,
    "generator": lambda: (n for n in range(3)),
    "lock": threading.Lock,
    "complex": lambda: 1j,
    "tuple keys": lambda: {(1, 2): 3},
    "class": lambda: HostileValue,
}


@shared_task
def give(kind):
    return RESULTS[kind]()


# -- the process -------------------------------------------------------------------------------------------------------


@shared_task
def close_files():
    """As a library does that makes a daemon of its process."""
    os.closerange(3, 4096)
    return "closed"


@shared_task
def close_standard_streams():
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()
    return "closed"


@shared_task
def leak_files(count):
    leaked.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(count))
    return len(leaked)


leaked: list[int] = []


@shared_task
def change_directory(path):
    os.chdir(path)
    return str(Path.cwd())


@shared_task
def change_signals():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    return "changed"


@shared_task
def block_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGUSR1})
    return "blocked"


@shared_task
def start_alarm():
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    return "started"


@shared_task
def leave_a_thread(daemon):
    """A thread that never ends."""
    threading.Thread(target=threading.Event().wait, daemon=daemon, name="left").start()
    return "left"


@shared_task
def fork_child():
    """Fork as careful programs do."""
    child = os.fork()
    if child == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@shared_task
def fork_and_return(key):
    """Fork, and go on as both processes."""
    record("before", key)
    child = os.fork()
    record("child" if child == 0 else "parent", key)
    if child:
        os.waitpid(child, 0)
    return "both"


@shared_task
def fork_and_raise(key):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return "parent"
    raise ValueError("the child")


def _answer(queue):
    queue.put(os.getpid())


@shared_task
def use_multiprocessing():
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_answer, args=(queue,))
    process.start()
    found = queue.get()
    process.join()
    return found == process.pid and found != os.getpid()


@shared_task
def use_subprocess(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


@shared_task
def leave_a_program(seconds):
    """A child process that outlives its parent."""
    return subprocess.Popen(["sleep", str(seconds)], start_new_session=True).pid


@shared_task
def print_much(lines, width):
    for _ in range(lines):
        print("x" * width)  # noqa: T201 - printing is what is tested
    print("y" * (lines * width))  # noqa: T201 - likewise
    logging.getLogger("chatty").warning("z" * lines)
    return lines


@shared_task
def change_everything():
    """Settings of the interpreter that a careless library changes."""
    gc.disable()
    sys.setrecursionlimit(200)
    sys.setswitchinterval(1.0)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")
    faulthandler.disable()
    threading.settrace(None)
    time.tzset()
    os.environ.pop("PATH", None)
    os.environ.pop("HOME", None)
    os.nice(1)
    sys.argv = None
    return "changed"


@shared_task
def nested(depth):
    """Wait for a task that waits for a task…"""
    if depth == 0:
        return 0
    with allow_join_result():
        return 1 + nested.delay(depth - 1).get(timeout=30)


@shared_task
def wait_for_children(count):
    with allow_join_result():
        return sum(group(add.s(n, 1) for n in range(count))().get(timeout=30))


@shared_task
def wait_for_chord():
    with allow_join_result():
        return chord([add.s(n) for n in range(5)])(total.s()).get(timeout=30)


@shared_task
def wait_forbidden():
    return add.delay(1).get(timeout=10)


@shared_task
def hold(key, gate):
    record("started", key)
    wait_for_file(gate)
    return key


# -- receivers that raise ----------------------------------------------------------------------------------------------


@shared_task
def received_badly(value):
    return value


def _only_for_the_one(sender=None, task=None, request=None, **_):
    names = [getattr(each, "name", None) for each in (sender, task, request)]
    if f"{__name__}.received_badly" in names:
        raise RuntimeError("a receiver with a bug")


for _signal in (
    signals.task_prerun,
    signals.task_postrun,
    signals.task_success,
    signals.task_failure,
    signals.task_received,
):
    _signal.connect(_only_for_the_one, weak=False)


@shared_task(bind=True, autoretry_for=(ValueError,), max_retries=1, default_retry_delay=0)
def retried(self, value):
    if not self.request.retries:
        raise ValueError(value)
    with contextlib.suppress(KeyError):
        {}[value]
    return self.request.retries
