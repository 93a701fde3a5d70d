"""What a sender does about a queue that is full and a broker that is slow, and how it was told.

A queue is bounded in kombu's own terms: ``Queue("bulk", max_length=1000)``, or the queue argument ``x-max-length``.  What
happens to a message for which there is no room says, from the nearest to the most general: the call (``queue_full="block"``), the
queue (argument ``x-overflow``: ``reject-publish`` or ``drop-head``), the app (``celeriac_queue_full``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from kombu.exceptions import OperationalError

from celeriac.errors import ConfigurationError, QueueFull
from celeriac.message import Bound, Message

RAISE, BLOCK, DROP_OLDEST = "raise", "block", "drop_oldest"
CHOICES = (RAISE, BLOCK, DROP_OLDEST)

OVERFLOWS = {"reject-publish": None, "reject-publish-dlx": None, "drop-head": DROP_OLDEST}
"""The queue argument ``x-overflow`` of RabbitMQ, in our words; refused messages are the app's choice between raising and blocking."""

SERVERS_WORDS = {RAISE: "reject-publish", BLOCK: "reject-publish", DROP_OLDEST: "drop-head"}
"""What RabbitMQ, which bounds its queues itself, is told when a bounded queue is declared that does not say ``x-overflow``: the app's
``celeriac_queue_full``.  Where the app leaves that alone it is told nothing, as by Celery, and the oldest go without a word."""

PUBLISH_SECONDS = 10.0
"""``celeriac_publish_timeout``: how long sending may take in all, attempts and pauses together.  Too low fails where a moment's
patience would do; too high makes a web request wait for a broker that is away."""

FULL_SECONDS = 30.0
"""``celeriac_queue_full_timeout``: how long a sender that blocks waits for room."""


class QueueIsFull(QueueFull, OperationalError):
    """A queue has reached its maximum length; nothing was sent.

    Celery's users know it as :exc:`kombu.exceptions.OperationalError`.
    """

    patience = 0.0
    """How many seconds more its sender was told to wait for room; for those who wait in their own way."""


class Terms(NamedTuple):
    """How a message is to be sent."""

    policy: dict[str, Any] | None
    """Celery's ``retry_policy``; ``None``: one attempt."""
    timeout: float = PUBLISH_SECONDS
    """Seconds for all attempts together; infinite is for those who wait by themselves."""
    queue_full: str | None = None
    """One of :data:`CHOICES`; ``None``: as the queue says."""
    default_full: str = RAISE
    """For queues that do not say."""
    full_timeout: float = FULL_SECONDS
    buffered: int = 0
    """Messages that may wait in this process for a broker that is away."""


def terms_of(conf: Any, policy: dict[str, Any] | None) -> Terms:
    """What an app's settings say.

    Raises:
        ConfigurationError: a setting that cannot work.
    """
    timeout, full_timeout = conf.get("celeriac_publish_timeout"), conf.get("celeriac_queue_full_timeout")
    return Terms(
        policy,
        PUBLISH_SECONDS if timeout is None else _seconds("celeriac_publish_timeout", timeout),
        None,
        _choice("celeriac_queue_full", conf.get("celeriac_queue_full") or RAISE),
        FULL_SECONDS if full_timeout is None else _seconds("celeriac_queue_full_timeout", full_timeout),
        _size(conf.get("celeriac_publish_buffer") or 0),
    )


def terms_of_call(terms: Terms, options: dict[str, Any]) -> Terms:
    """The same for one call: takes its options ``publish_timeout``, ``queue_full`` and ``queue_full_timeout`` out of the others.

    Raises:
        ConfigurationError: an option that cannot work.
    """
    timeout, full = options.pop("publish_timeout", None), options.pop("queue_full", None)
    full_timeout = options.pop("queue_full_timeout", None)
    if timeout is not None:
        terms = terms._replace(timeout=_seconds("publish_timeout", timeout))
    if full_timeout is not None:
        if full not in (None, BLOCK):
            raise ConfigurationError(f'queue_full_timeout is for queue_full="block", not {full!r}')
        terms = terms._replace(full_timeout=_seconds("queue_full_timeout", full_timeout))
        full = full or BLOCK
    return terms if full is None else terms._replace(queue_full=_choice("queue_full", full))


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise ConfigurationError(f"{name} is a number of seconds above 0, not {value!r}")
    return float(value)


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigurationError(f"celeriac_publish_buffer is a number of messages (0: none are kept), not {value!r}")
    return value


def _choice(name: str, value: Any) -> str:
    if value not in CHOICES:
        raise ConfigurationError(f"{name} is one of {', '.join(CHOICES)}, not {value!r}")
    return str(value)


def bounds_of(app: Any, messages: Iterable[Message], terms: Terms) -> dict[str, Bound]:
    """The bounds of the queues that these messages go to; empty for most apps."""
    bounds: dict[str, Bound] = {}
    queues = app.amqp.queues
    for message in messages:
        declared = queues.get(message.queue)
        if declared is not None and (declared.max_length is not None or declared.queue_arguments):
            bound = _bound(declared, terms)
            if bound is not None:
                bounds[message.queue] = bound
    return bounds


def _bound(queue: Any, terms: Terms) -> Bound | None:
    arguments = queue.queue_arguments or {}
    most = arguments.get("x-max-length") if queue.max_length is None else queue.max_length
    if most is None:
        return None
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ConfigurationError(f"Queue {queue.name}: max_length is a whole number above 0, not {most!r}")
    return Bound(most, full_choice(queue, terms) == DROP_OLDEST)


def full_choice(queue: Any, terms: Terms) -> str:
    """What becomes of a message for which this queue has no room: one of :data:`CHOICES`.  ``queue`` is its declaration, if any."""
    overflow = None if queue is None else (queue.queue_arguments or {}).get("x-overflow")
    if overflow is not None and overflow not in OVERFLOWS:
        raise ConfigurationError(
            f"Queue {queue.name}: x-overflow is one of {', '.join(sorted(OVERFLOWS))}, not {overflow!r}"
        )
    own = OVERFLOWS.get(overflow) if overflow is not None else None
    if own is None and overflow is not None and terms.default_full == DROP_OLDEST:
        own = RAISE
    return terms.queue_full or own or terms.default_full


# -- brokers that bound their queues themselves ------------------------------------------------------------------------


def overflow_of(app: Any, queue: Any) -> str | None:
    """What the server does with what is too much for a bounded queue; ``None``: it was told nothing."""
    own = (queue.queue_arguments or {}).get("x-overflow")
    return own or SERVERS_WORDS.get(app.conf.get("celeriac_queue_full"))


def check_servers_bounds(app: Any, queues: Iterable[str], terms: Terms) -> None:
    """See that what a call says of full queues is what the server was told.  Raises ``ConfigurationError`` where it is not."""
    for name in queues if terms.queue_full else ():
        told = overflow_of(app, app.amqp.queues[name])
        if told is None or not told.startswith(SERVERS_WORDS[str(terms.queue_full)]):
            raise ConfigurationError(
                f"This broker bounds queue {name} itself, as it was declared ({told or 'the oldest go without a word'}), and "
                f"queue_full={terms.queue_full!r} of a call cannot change that: set celeriac_queue_full, or the queue's x-overflow"
            )


def silent_queues(app: Any) -> list[str]:
    """Bounded queues whose oldest messages the server would drop without a word."""
    terms = terms_of(app.conf, None)
    found = ((queue, _bound(queue, terms)) for queue in app.amqp.queues.values())
    return sorted(queue.name for queue, bound in found if bound is not None and overflow_of(app, queue) is None)
