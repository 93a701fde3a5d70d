"""What follows a task that succeeded: its callbacks and the next link of its chain."""

from __future__ import annotations

from typing import Any

from celery.canvas import group, maybe_signature


def dispatch(app: Any, value: Any, request: Any, *, inherit_priority: bool) -> None:
    """Send callbacks, groups among them one by one (each keeps its own trail), then the chain's next link."""
    info = request.delivery_info or {}
    options = {
        "parent_id": request.id,
        "root_id": request.root_id or request.id,
        "priority": info.get("priority") if inherit_priority else None,
    }
    for callback in _callbacks(app, request.callbacks):
        callback.apply_async((value,), **options)
    if request.chain:
        following = maybe_signature(request.chain[-1], app=app)
        following.apply_async((value,), chain=request.chain[:-1], **options)


def _callbacks(app: Any, callbacks: Any) -> list[Any]:
    signatures = [maybe_signature(callback, app=app) for callback in callbacks or ()]
    if len(signatures) < 2:
        return signatures
    groups = [signature for signature in signatures if isinstance(signature, group)]
    singles = [signature for signature in signatures if not isinstance(signature, group)]
    return [*groups, group(singles, app=app)] if singles else groups
