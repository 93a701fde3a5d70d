"""``celeriac_dead_limit``: how many dead letters are kept."""

from __future__ import annotations

from typing import Any

from celeriac.errors import ConfigurationError


def dead_limit(app: Any) -> dict[str, int]:
    """The app's setting as a broker's option; empty without one: the broker's own default, 10,000 on most.

    Raises:
        ConfigurationError: it is not a whole number above 0.
    """
    limit = app.conf.get("celeriac_dead_limit")
    if limit is None:
        return {}
    if type(limit) is not int or limit < 1:
        raise ConfigurationError(
            f"celeriac_dead_limit is {limit!r}; it is a whole number from 1 on (dead_letter=False keeps those of a task out)"
        )
    return {"dead_limit": limit}
