"""The rights that each role needs on RabbitMQ, as ``rabbitmqctl set_permissions``.

Reading a queue is taking messages out of it, and binding an exchange needs the right to read it; the two have the same name where
Celery's defaults are used.  So a producer that must not consume cannot declare queues either: workers do that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from celeriac.access import PASSWORD, Role

NOTHING = "^$"
OWN = r"celeriac\..+"
"""Queues and exchanges of our own."""
DELAYS = r"celeriac\.(delay\.[0-9]+|due)"
MAILBOXES = r".*celery\.pidbox|celeryev.*|celery_delayed_.*"
"""Remote control and events, and Celery's own delayed delivery."""

NO_DECLARING = "It cannot declare queues: start a worker first, and give producers task_queues with no_declare=True."
EVENTS_ONLY = "It sees events; give it the tag `monitoring` to see queues in the management interface, too."


def rabbitmq_roles(
    vhost: str, queues: Sequence[str], exchanges: Iterable[str], user_prefix: str, *, control: bool = False
) -> list[Role]:
    """All three, for some queues and the exchanges that messages come to them by.  ``control``: let monitors send control commands."""
    names = "|".join(re.escape(name) for name in dict.fromkeys([*queues, *filter(None, exchanges)]))
    targets = "|".join(re.escape(name) for name in dict.fromkeys(filter(None, exchanges)))
    sends = "|".join(filter(None, [r"amq\.default", targets, DELAYS]))
    works = f"^({names}|{OWN}|{MAILBOXES}|amq\\.(default|gen.*))$"
    events = f"^({MAILBOXES})$" if control else "^celeryev.*$"
    return [
        _role("producer", user_prefix, vhost, (NOTHING, f"^({sends})$", NOTHING), NO_DECLARING),
        _role("worker", user_prefix, vhost, (works, works, works)),
        _role("monitor", user_prefix, vhost, (events, events, events), EVENTS_ONLY),
    ]


def _role(name: str, prefix: str, vhost: str, rights: Sequence[str], note: str = "") -> Role:
    """``rights``: what may be configured, written and read, as regular expressions."""
    user = f"{prefix}{name}"
    quoted = " ".join(f"'{right}'" for right in rights)
    statements = (
        f"rabbitmqctl add_user {user} {PASSWORD}",
        f"rabbitmqctl set_permissions -p '{vhost}' {user} {quoted}",
    )
    return Role(name, user, statements, (note,) if note else ())
