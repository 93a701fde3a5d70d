"""How this client introduces itself."""

from __future__ import annotations

import os
from typing import Any

from pamqp import commands

from celeriac.brokers.rabbitmq.options import RabbitOptions
from celeriac.errors import ConfigurationError
from celeriac.version import __version__

_PROPERTIES = {
    "product": "celeriac",
    "version": __version__,
    "platform": "Python",
    "capabilities": {
        "authentication_failure_close": True,
        "basic.nack": True,
        "connection.blocked": True,
        "consumer_cancel_notify": True,
        "publisher_confirms": True,
    },
}


def start_ok(options: RabbitOptions, offered: str, purpose: str) -> commands.Connection.StartOk:
    """Who logs in, and how.

    Args:
        options: where and as whom.
        offered: the server's ways to log in.
        purpose: of the connection, for people who look at the server.

    Raises:
        ConfigurationError: the server does not offer the way that was chosen.
    """
    if options.mechanism not in offered.split():
        raise ConfigurationError(f"The server offers {offered}, not login_method {options.mechanism}")
    if options.mechanism == "EXTERNAL":
        response = ""
    elif options.mechanism == "AMQPLAIN":
        raise ConfigurationError("login_method AMQPLAIN is not supported; use PLAIN, which sends the same")
    else:
        response = f"\0{options.user}\0{options.password}"
    properties: Any = {**_PROPERTIES, "connection_name": f"celeriac {purpose} {os.getpid()}"}
    return commands.Connection.StartOk(properties, options.mechanism, response, "en_US")
