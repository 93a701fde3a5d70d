"""Which broker an app means: the embedded default comes after everything else that names one."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import celery
import pytest

import celeriac
from celeriac.compat.app import upgrade
from celeriac.compat.connect import EMBEDDED_URL

URL = "redis://broker.example/1"


def module(**settings):
    """A configuration module."""
    found = types.ModuleType("config")
    found.__dict__.update(settings)
    return found


def from_module(app):
    app.config_from_object(module(broker_url=URL))


def from_module_with_namespace(app):
    app.config_from_object(module(SHOP_BROKER_URL=URL), namespace="SHOP")


def from_old_names(app):
    app.config_from_object(module(BROKER_URL=URL))


def from_module_after_use(app):
    assert app.conf.broker_url == EMBEDDED_URL
    app.config_from_object(module(broker_url=URL), force=True)


def from_dict(app):
    app.conf.update({"broker_url": URL})


def from_attribute(app):
    app.conf.broker_url = URL


def from_defaults(app):
    app.add_defaults({"broker_url": URL})


@pytest.mark.parametrize(
    "configure",
    [
        from_module,
        from_module_with_namespace,
        from_old_names,
        from_module_after_use,
        from_dict,
        from_attribute,
        from_defaults,
    ],
)
def test_a_configured_broker_comes_before_the_embedded_default(configure):
    app = celeriac.Celery("app", set_as_current=False)

    configure(app)

    assert app.conf.broker_url == URL


def test_without_a_broker_an_app_uses_the_embedded_default():
    assert celeriac.Celery("app", set_as_current=False).conf.broker_url == EMBEDDED_URL
    assert celeriac.Celery("app", set_as_current=False, config_source=module(x=1)).conf.broker_url == EMBEDDED_URL


def test_an_upgraded_app_without_a_broker_has_none():
    assert upgrade(celery.Celery("app", set_as_current=False)).conf.broker_url is None


def test_the_environment_names_a_broker():
    program = "import celeriac; print(celeriac.Celery('app').conf.broker_url)"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "CELERY_BROKER_URL": URL},
    )  # fmt: skip

    assert found.stdout.strip() == URL
