"""Workers in the process of an app's tests: Celery's ``start_worker`` and the fixtures of its pytest plugin."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent / "apps" / "tested"


@pytest.mark.timeout(180)
def test_the_tests_of_a_project_with_celerys_plugin_pass(tmp_path):
    words = ["-m", "pytest", "checks.py", "-v", "-W", "error", "-p", "no:cacheprovider", "--rootdir", str(PROJECT)]
    found = subprocess.run(
        [sys.executable, *words, f"--basetemp={tmp_path}/tests"],
        cwd=PROJECT, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip

    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    assert re.search(r"\b9 passed", found.stdout), found.stdout[-2000:]
