"""Celeriac and Celery on RabbitMQ: one server for each measurement, with its defaults and as many schedulers as cores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from functools import partial

from benchmarks.site import Site
from benchmarks.systems.base import System, part
from benchmarks.systems.celeriac import BareLoop, Celeriac
from benchmarks.systems.celery import QUEUE, CeleryPrefork
from celeriac.brokers.rabbitmq.broker import RabbitBroker
from celeriac.brokers.rabbitmq.options import CLASSIC, QUORUM
from celeriac.brokers.rabbitmq.topology import QueueSpec
from celeriac.compat.connect_rabbitmq import rabbit_options
from tests.server_rabbitmq import RabbitServer

_MESSAGES = """
{ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>)),
case amqqueue:get_type(Queue) of
    rabbit_quorum_queue -> element(2, element(2, ra:local_query(amqqueue:get_pid(Queue), fun rabbit_fifo:query_messages_total/1)));
    _ -> rabbit_amqqueue:info(Queue, [messages])
end.
""".replace("\n", " ")
"""Ready and unacknowledged."""


class OnRabbit(System):
    """What both have in common: a backlog is sent by Celeriac, which makes the same messages faster."""

    isolated = False
    on_redis = False
    queue_type = CLASSIC
    sender = "benchmarks.apps.celeriac_app"

    def server(self, site: Site) -> RabbitServer:
        return site.keep("rabbitmq", lambda: RabbitServer(schedulers=None).start())

    def environment(self, site: Site) -> Mapping[str, str]:
        return {"BENCH_URL": self.server(site).url, "BENCH_QUEUE_TYPE": self.queue_type}

    def preload(self, site: Site, count: int) -> None:
        sender = CeleriacRabbit()
        sender.queue_type = self.queue_type
        sender.send(site, [part("noop", count)])

    def remaining(self, site: Site) -> int:
        """Ready and unacknowledged."""
        server = self.server(site)
        typed = {"x-queue-type": QUORUM} if self.queue_type == QUORUM else {}
        with closing(RabbitBroker(rabbit_options(server.url), partial(QueueSpec, arguments=typed))) as broker:
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


class LimitRabbit(BareLoop, CeleriacRabbit):
    name = "limit-rabbitmq"
    title = "the limit on RabbitMQ"


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


class CeleriacQuorum(CeleriacRabbit):
    """A quorum queue keeps messages as they came; a classic one of this version all of their headers decoded, in memory."""

    name = "celeriac-rabbitmq-quorum"
    title = "Celeriac on RabbitMQ, quorum queue"
    settings = "as on Redis; quorum queues, Celeriac's own among them; one node"
    queue_type = QUORUM


class CeleryQuorum(CeleryRabbit):
    name = "celery-rabbitmq-quorum"
    title = "Celery prefork on RabbitMQ, quorum queue"
    settings = f"{CeleryPrefork.settings}; quorum queue, not confirmed (its default); one node"
    queue_type = QUORUM
