"""Whether an error says that a store is away, whoever raises it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celeriac.errors import StoreUnavailable


@contextmanager
def telling_away(backend: Any, what: str) -> Iterator[None]:
    """Raise ``StoreUnavailable``, with what cannot be done, for each error that says so.  Celery's backends raise their drivers' own."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (StoreUnavailable, *(getattr(backend, "connection_errors", None) or ()))) or (
            getattr(backend, "always_retry", False) and backend.exception_safe_to_retry(error)
        ):
            raise StoreUnavailable(f"{what}: {error}") from error
        raise
