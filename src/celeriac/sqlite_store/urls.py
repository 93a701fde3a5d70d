"""``sqlite:///relative/path`` and ``sqlite:////absolute/path``, as SQLAlchemy writes them."""

from __future__ import annotations

from urllib.parse import unquote

from celeriac.errors import ConfigurationError

_PREFIX = "sqlite:///"


def path_from_url(url: str) -> str:
    """The file that a URL names.

    Raises:
        ConfigurationError: it names none.
    """
    if not url.startswith(_PREFIX) or len(url) == len(_PREFIX):
        raise ConfigurationError(f"{url!r} names no file: write sqlite:///file or sqlite:////absolute/file")
    return unquote(url[len(_PREFIX) :].partition("?")[0])
