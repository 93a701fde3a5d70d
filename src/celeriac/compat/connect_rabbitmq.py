"""``amqp://`` URLs and their relatives."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from celeriac.backend import Backend
from celeriac.broker import Broker
from celeriac.brokers.rabbitmq.options import CLASSIC, QUORUM, Address, RabbitOptions
from celeriac.compat.dead_limit import dead_limit
from celeriac.errors import ConfigurationError, MissingExtra
from celeriac.settings import LEASE_SECONDS

PORT, TLS_PORT = 5672, 5671
SCHEMES = frozenset({"amqp", "amqps", "pyamqp"})

CELERYS_HEARTBEAT = 120.0
"""Seconds: ``broker_heartbeat`` as it comes."""
LEASE_SHARE = 3
"""How many heartbeats a lease is long where the app names none.  The server gives a node that fell silent up after one to three: what it
has pushed there meanwhile then goes to others about when the node's leases run out."""


def open_broker(app: Any, url: str, answer_seconds: float | None, results: Backend | None) -> Broker:
    """A broker for this app and URL (see :data:`celeriac.compat.connect.BROKERS`)."""
    _require_pamqp()
    from celeriac.brokers.rabbitmq.broker import RabbitBroker
    from celeriac.compat.rabbitmq_queues import queue_specs

    return RabbitBroker(app_options(app, url, answer_seconds), queue_specs(app))


def app_options(app: Any, url: str, answer_seconds: float | None = None) -> Any:
    """Where an app's RabbitMQ is."""
    conf = app.conf
    known: dict[str, Any] = {**dead_limit(app)}
    if conf.broker_login_method:
        known["mechanism"] = conf.broker_login_method
    known["heartbeat"] = _heartbeat(conf)
    transport = conf.broker_transport_options
    known["connect_timeout"] = float(transport.get("connect_timeout") or conf.broker_connection_timeout or 4)
    known["answer_timeout"] = float(transport.get("read_timeout") or answer_seconds or 10)
    if "dead_letter_limit" in transport:
        known["dead_limit"] = int(transport["dead_letter_limit"])
    urls = _urls(conf, url)
    known["queue_type"] = transport.get("own_queue_type") or _own_queue_type(conf, urls)
    if known["queue_type"] not in (CLASSIC, QUORUM):
        raise ConfigurationError(
            f"own_queue_type in broker_transport_options is classic or quorum, not {known['queue_type']!r}"
        )
    return rabbit_options(
        urls, tls=conf.broker_use_ssl, strategy=conf.broker_failover_strategy,
        user=conf.broker_user, password=conf.broker_password, **known,
    )  # fmt: skip


def _heartbeat(conf: Any) -> float:
    given = conf.broker_heartbeat
    if given is not None and float(given) != CELERYS_HEARTBEAT:
        return float(given)
    lease = float(conf.get("celeriac_lease_seconds") or LEASE_SECONDS)
    return max(1.0, lease / LEASE_SHARE)


def _own_queue_type(conf: Any, urls: str) -> str:
    """Queues of our own survive a node where the app's do, or where it names several nodes.

    By the settings alone: an app's queues, once made, do not follow them any more.
    """
    queues = conf.task_queues or ()
    given = [
        queue if isinstance(queue, dict) else vars(queue)
        for queue in (queues.values() if isinstance(queues, dict) else queues)
    ]
    types = {(each.get("queue_arguments") or {}).get("x-queue-type") for each in given}
    types |= {conf.task_default_queue_type, conf.task_create_missing_queue_type}
    return QUORUM if ";" in urls or QUORUM in types else CLASSIC


def _urls(conf: Any, url: str) -> str:
    """The URL, and those after it when the app has a list."""
    given = conf.broker_write_url or conf.broker_url
    return ";".join(map(str, given)) if isinstance(given, (list, tuple)) else url


def rabbit_options(
    url: str, *, tls: Any = None, strategy: Any = None, user: str | None = None, password: str | None = None,
    **known: Any,
) -> Any:  # fmt: skip
    """Options of one URL, or of several with ``;`` between them.

    Args:
        url: as kombu takes it.
        tls: ``broker_use_ssl``: true, or a dictionary with the keys of the ``ssl`` module.
        strategy: ``broker_failover_strategy``.
        user: for a URL that names none.
        password: the same.
        known: fields of :class:`~celeriac.brokers.rabbitmq.RabbitOptions`.

    Raises:
        ConfigurationError: it is not such a URL, or its servers are not one cluster.
    """
    parts = [urlsplit(each.strip()) for each in url.split(";") if each.strip()]
    first = parts[0]
    query = dict(parse_qsl(first.query))
    tls = _with_query(tls, query)
    secure = first.scheme == "amqps" or bool(tls)
    addresses = []
    for part in parts:
        try:
            port = part.port
        except ValueError as error:
            raise ConfigurationError(f"The port in {_safe(part)} is not a number") from error
        addresses.append(Address(unquote(part.hostname or "localhost"), port or (TLS_PORT if secure else PORT)))
    if len({(part.username, part.path) for part in parts}) > 1:
        raise ConfigurationError(
            "The broker URLs differ in more than their addresses; Celeriac fails over between the nodes of one cluster"
        )
    if strategy == "shuffle":
        import random

        random.shuffle(addresses)
    method = query.get("login_method")
    if method:
        known["mechanism"] = method
    if "heartbeat" in query:
        known["heartbeat"] = float(query["heartbeat"])
    known["mechanism"] = str(known.get("mechanism") or "PLAIN").upper()
    path = first.path.removeprefix("/")
    return RabbitOptions(
        addresses=tuple(addresses),
        vhost=unquote(path) or "/",
        user=unquote(first.username or user or "guest"),
        password=unquote(first.password or password or "guest"),
        tls=tls_context(tls) if secure else None,
        server_hostname=tls.get("server_hostname") if isinstance(tls, dict) else None,
        **known,
    )


_REQUIREMENTS = {"CERT_REQUIRED": 2, "CERT_OPTIONAL": 1, "CERT_NONE": 0, "required": 2, "optional": 1, "none": 0}
"""Ways to write ``ssl_cert_reqs`` in a URL, as kombu takes them."""


def _with_query(tls: Any, query: dict[str, str]) -> Any:
    """``broker_use_ssl`` with the URL's ``ssl_*`` parameters, which go before it."""
    given: dict[str, Any] = {name.removeprefix("ssl_"): text for name, text in query.items() if name.startswith("ssl_")}
    if not given:
        return tls
    if "cert_reqs" in given:
        if given["cert_reqs"] not in _REQUIREMENTS:
            raise ConfigurationError(f"ssl_cert_reqs is one of {_listed(_REQUIREMENTS)}, not {given['cert_reqs']}")
        given["cert_reqs"] = _REQUIREMENTS[given["cert_reqs"]]
    return {**(tls if isinstance(tls, dict) else {}), **given}


def _safe(part: Any) -> str:
    return f"{part.scheme}://{part.netloc.rpartition('@')[2]}{part.path}"


_TLS_KEYS = frozenset(
    {
        "keyfile",
        "certfile",
        "ca_certs",
        "cert_reqs",
        "server_hostname",
        "ssl_version",
        "ciphers",
        "password",
        "ca_path",
        "check_hostname",
    }
)


def tls_context(given: Any) -> ssl.SSLContext:
    """A context from ``broker_use_ssl``.

    Without ``cert_reqs`` the server's certificate is checked, as it is for ``amqps://`` alone.

    Raises:
        ConfigurationError: a key that is not known, or a file that cannot be read.
    """
    settings = dict(given) if isinstance(given, dict) else {}
    unknown = set(settings) - _TLS_KEYS
    if unknown:
        raise ConfigurationError(f"broker_use_ssl has no {_listed(unknown)}; it has {_listed(_TLS_KEYS)}")
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    wanted = ssl.VerifyMode(settings.get("cert_reqs", ssl.CERT_REQUIRED))
    checked = str(settings.get("check_hostname", True)).lower() not in ("false", "0", "no")
    context.check_hostname = checked and wanted == ssl.CERT_REQUIRED
    context.verify_mode = wanted
    try:
        if settings.get("ca_certs") or settings.get("ca_path"):
            context.load_verify_locations(settings.get("ca_certs"), settings.get("ca_path"))
        if settings.get("certfile"):
            context.load_cert_chain(settings["certfile"], settings.get("keyfile"), settings.get("password"))
        if settings.get("ciphers"):
            context.set_ciphers(settings["ciphers"])
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"A file of broker_use_ssl cannot be used: {error}") from error
    return context


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _require_pamqp() -> None:
    try:
        import pamqp  # noqa: F401 - to see whether it is there
    except ImportError as error:
        raise MissingExtra("An amqp:// URL", "rabbitmq") from error
