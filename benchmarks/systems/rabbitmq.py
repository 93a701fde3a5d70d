"""Celeriac and Celery on RabbitMQ: one server for each measurement, with its defaults and as many schedulers as cores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing

from benchmarks.site import Site
from benchmarks.systems.base import System, part
from benchmarks.systems.celeriac import Celeriac, Limit
from benchmarks.systems.celery import QUEUE, CeleryPrefork
from celeriac.brokers.rabbitmq.broker import RabbitBroker
from celeriac.compat.connect_rabbitmq import rabbit_options
from tests.server_rabbitmq import RabbitServer

_MESSAGES = (
    'rabbit_amqqueue:info(element(2, rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>))), [messages]).'
)


class OnRabbit(System):
    """What both have in common: a backlog is sent by Celeriac, which makes the same messages faster."""

    isolated = False
    on_redis = False
    sender = "benchmarks.apps.celeriac_app"

    def server(self, site: Site) -> RabbitServer:
        return site.keep("rabbitmq", lambda: RabbitServer(schedulers=None).start())

    def environment(self, site: Site) -> Mapping[str, str]:
        return {"BENCH_URL": self.server(site).url}

    def preload(self, site: Site, count: int) -> None:
        CeleriacRabbit().send(site, [part("noop", count)])

    def remaining(self, site: Site) -> int:
        """Ready and unacknowledged."""
        server = self.server(site)
        with closing(RabbitBroker(rabbit_options(server.url))) as broker:
            broker.prepare([QUEUE])
        return self.messages(server)

    @staticmethod
    def messages(server: RabbitServer) -> int:
        found = re.search(r"\d+", server.eval(_MESSAGES % QUEUE))
        return int(found[0]) if found else 0


class CeleriacRabbit(OnRabbit):
    name = "celeriac-rabbitmq"
    title = "Celeriac on RabbitMQ"
    settings = "as on Redis; durable classic queue, persistent messages, confirmed"
    app = "benchmarks.apps.celeriac_app"
    packages = ("celeriac", "celery", "kombu", "pamqp")
    rate = 8000

    def workers(self) -> list[list[str]]:
        return Celeriac().workers()


class LimitRabbit(CeleriacRabbit):
    """The bare loop."""

    name = "limit-rabbitmq"
    title = "the limit on RabbitMQ"
    settings = Limit.settings

    def workers(self) -> list[list[str]]:
        return Limit().workers()


class CeleryRabbit(OnRabbit):
    name = "celery-rabbitmq"
    title = "Celery prefork on RabbitMQ"
    settings = f"{CeleryPrefork.settings}; durable classic queue, persistent messages, not confirmed (its default)"
    app = "benchmarks.apps.celery_app"
    packages = ("celery", "kombu", "amqp")
    rate = 2000

    def workers(self) -> list[list[str]]:
        return CeleryPrefork().workers()


class CeleryConfirmed(CeleryRabbit):
    """The same promise to the sender as Celeriac's: when the call returns, the server has the message."""

    name = "celery-rabbitmq-confirmed"
    title = "Celery on RabbitMQ, confirmed"
    settings = f"{CeleryPrefork.settings}; durable classic queue, persistent messages, confirmed (confirm_publish)"
    app = "benchmarks.apps.celery_confirmed_app"
