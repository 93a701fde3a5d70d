"""Celery's pytest plugin, with apps and workers of ours."""

from __future__ import annotations

from typing import Any

import celery
from celery.contrib import pytest as plugin
from celery.contrib.testing import app as testing

from celeriac.compat.app import Celery


def pytest_configure(config: Any) -> None:
    """Load Celery's plugin, unless something else has, and have its fixtures make apps of ours."""
    plugins = config.pluginmanager
    if not plugins.is_registered(plugin):
        plugins.register(plugin, plugin.__name__)
    testing.Celery = Celery


def pytest_unconfigure(config: Any) -> None:
    """The fixtures make apps of Celery's again."""
    testing.Celery = celery.Celery
