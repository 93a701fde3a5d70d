"""The package as it is built and installed."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import celeriac

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "celeriac"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def declared_version():
    source = (ROOT / "src/celeriac/version.py").read_text()
    return re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)[1]


def test_the_wheel_says_that_it_is_typed(wheel):
    assert "celeriac/py.typed" in wheel.namelist()


def test_the_wheel_has_every_source_script_and_statement(wheel):
    kinds = {".py", ".lua", ".sql", ".html", ".css", ".js"}
    sources = {f"celeriac/{path.relative_to(SOURCE).as_posix()}" for path in SOURCE.rglob("*") if path.suffix in kinds}

    missing = sources - set(wheel.namelist())

    assert sources
    assert not missing


def test_the_wheel_has_nothing_beside_the_package(wheel):
    outside = [name for name in wheel.namelist() if not re.match(r"celeriac(-[^/]+\.dist-info)?/", name)]

    assert outside == []


def test_the_wheel_carries_the_licence_and_names_it(wheel):
    metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))

    assert "License-Expression: BSD-3-Clause" in wheel.read(metadata).decode()
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_the_newest_entry_of_the_changelog_is_this_version():
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]

    assert newest == declared_version()


def test_the_installed_package_has_the_declared_version():
    assert importlib.metadata.version("celeriac") == declared_version()


def test_the_package_tells_its_version():
    assert celeriac.__version__ == declared_version()


def test_the_makefile_explains_its_targets():
    answer = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)

    assert {"install", "demo", "test", "check", "bench"} <= set(re.findall(r"make (\w+)", answer.stdout))
