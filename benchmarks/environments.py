"""A virtual environment for each peer: they ask for different versions of the same packages."""

from __future__ import annotations

import contextlib
import subprocess
import sys

from benchmarks.systems.base import REQUIREMENTS, VENVS, System

VERSIONS = "import importlib.metadata as m, sys; [print(n, m.version(n)) for n in sys.argv[1:]]"


class Missing(RuntimeError):
    """The system cannot be installed here; the text says why."""


def prepare(system: System) -> None:
    """Make the system's environment if it has one of its own and it is not there yet.

    Raises:
        Missing: it cannot be made.
    """
    if not system.isolated:
        return
    requirements = REQUIREMENTS / f"{system.home}.txt"
    installed = VENVS / system.home / "installed.txt"
    if installed.exists() and installed.read_text() == requirements.read_text():
        return
    _run([sys.executable, "-m", "venv", "--without-pip", str(VENVS / system.home)])
    pip = [sys.executable, "-m", "pip", "--python", str(system.bin / "python"), "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", "--requirement", str(requirements)])
    installed.write_text(requirements.read_text())


def versions(system: System) -> dict[str, str]:
    """Versions of the packages that matter, as installed; empty where there is no environment."""
    command = [str(system.bin / "python"), "-c", VERSIONS, *system.packages]
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return dict(line.split() for line in done.stdout.splitlines())
    return {}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise Missing(f"not installed: {' '.join(lines[-1:])}")
