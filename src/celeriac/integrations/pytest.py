"""Celery's pytest plugin on Celeriac: ``celery_app``, ``celery_worker``, ``celery_session_app`` and ``celery_session_worker`` are
apps and workers of ours, with all their patterns; everything else about them is as in Celery's guide.

In ``conftest.py``, in place of ``celery.contrib.pytest``::

    pytest_plugins = ["celeriac.integrations.pytest"]

or for one run ``pytest -p celeriac.integrations.pytest``.
"""

from celeriac.compat.testing import pytest_configure, pytest_unconfigure

__all__ = ["pytest_configure", "pytest_unconfigure"]
