"""What a transport of kombu's can do, and what an app asks of it that it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, resolve_transport

from celeriac.errors import ConfigurationError
from celeriac.settings import EngineSettings

DEAD_QUEUE = "celeriac-dead"
"""The queue that keeps the dead letters of a transport."""


@dataclass(frozen=True, slots=True)
class Traits:
    """One kind of transport."""

    keeps: bool = False
    """Whether it keeps a message until it is acknowledged.  Most take it out when they give it away; a journal on this machine
    keeps it for them (see :mod:`celeriac.compat.through_kombu.journal`)."""
    session: bool = False
    """Whether what was given away is void when the connection breaks."""
    in_order: bool = False
    """Whether acknowledging a message acknowledges all before it."""
    visibility: bool = False
    """Whether a message comes back after a time unless that is extended."""
    priorities: bool = False
    batch: int = 10
    """Most messages taken at a time: each is a round trip."""
    pause: float = 0.1
    """Seconds between two looks while there is nothing.  ``polling_interval`` in the transport options overrides it."""
    extra: str = ""
    """What to install for it."""


SQS = Traits(keeps=True, visibility=True, pause=1.0, extra="celeriac[sqs]")
KAFKA = Traits(keeps=True, in_order=True, batch=1, extra="celeriac[kafka]")
AMQP = Traits(keeps=True, session=True, priorities=True)

KNOWN = {
    "sqs": SQS,
    "kafka": KAFKA,
    "confluentkafka": KAFKA,
    **dict.fromkeys(("amqp", "amqps", "pyamqp", "librabbitmq", "qpid"), AMQP),
    "azureservicebus": Traits(keeps=True, pause=1.0, extra="kombu[azureservicebus]"),
    "gcpubsub": Traits(keeps=True, pause=1.0, extra="kombu[gcpubsub]"),
    "mongodb": Traits(priorities=True, extra="kombu[mongodb]"),
    "sqlalchemy": Traits(extra="kombu[sqlalchemy]"),
    "sqla": Traits(extra="kombu[sqlalchemy]"),
    "zookeeper": Traits(priorities=True, pause=1.0, extra="kombu[zookeeper]"),
    "memory": Traits(pause=0.02),
    "filesystem": Traits(pause=0.05),
}
"""By scheme; any other transport is taken for one that keeps nothing, which is always safe."""


def transport_name(url: str) -> str:
    """Kombu's name of the transport that a URL means."""
    scheme = url.partition("://")[0] if "://" in url else url
    return scheme.partition("+")[0]


def is_known(url: str) -> bool:
    """Whether kombu has a transport for a URL."""
    name = transport_name(url)
    return name in TRANSPORT_ALIASES or ":" in name or "." in name


def traits_of(url: str) -> Traits:
    """What the URL's transport can do.

    Raises:
        ConfigurationError: what it needs is not installed; the text has the pip line.
    """
    name = transport_name(url)
    traits = KNOWN.get(name.lower(), Traits())
    try:
        resolve_transport(name)
    except ImportError as error:
        raise _not_installed(name, traits, error) from error
    return traits


def _not_installed(name: str, traits: Traits, error: ImportError) -> ConfigurationError:
    extra = traits.extra or f"kombu[{name.lower()}]"
    return ConfigurationError(f"{name}:// brokers need an optional dependency ({error}): pip install '{extra}'")


def check(app: Any, url: str, traits: Traits, engine: EngineSettings) -> None:
    """See whether a worker can do on this transport what its app and its options ask for.

    Raises:
        ConfigurationError: it cannot; the text names the way out.
    """
    name = transport_name(url)
    if name == "memory" and not engine.in_process:
        raise ConfigurationError(
            "memory:// lives in one process, and the worker's tasks run in others: use --pool=solo in the process that sends, "
            "or sqlite:///celeriac.sqlite3, which needs no server either"
        )
    if not traits.priorities:
        _check_priorities(app, name, engine)
    with app.connection_for_read() as connection:
        for queue in engine.queues:
            declared = app.amqp.queues[queue]
            kind = getattr(declared.exchange, "type", None) or "direct"
            if not connection.supports_exchange_type(kind):
                raise ConfigurationError(
                    f"The queue {queue!r} has an exchange of type {kind}, which {name}:// does not have: use direct exchanges, "
                    "or RabbitMQ"
                )
    if traits.visibility:
        _check_predefined(app, engine)


def _check_priorities(app: Any, name: str, engine: EngineSettings) -> None:
    asked = [setting for setting in ("task_queue_max_priority", "task_default_priority") if app.conf.get(setting)]
    for queue in engine.queues:
        arguments = app.amqp.queues[queue].queue_arguments or {}
        if app.amqp.queues[queue].max_priority or "x-max-priority" in arguments:
            asked.append(f"the queue {queue!r}")
    if asked:
        raise ConfigurationError(
            f"{name}:// has no priorities, which {' and '.join(asked)} ask for: use a queue and a worker for each priority, "
            "or Redis, RabbitMQ, PostgreSQL or SQLite"
        )


def _check_predefined(app: Any, engine: EngineSettings) -> None:
    predefined = app.conf.broker_transport_options.get("predefined_queues")
    missing = [name for name in (*engine.queues, DEAD_QUEUE) if predefined and name not in predefined]
    if missing:
        raise ConfigurationError(
            f"broker_transport_options['predefined_queues'] lacks {', '.join(map(repr, missing))}"
            f"{'; dead letters are kept in ' + DEAD_QUEUE if DEAD_QUEUE in missing else ''}: create the queue and add its url"
        )
