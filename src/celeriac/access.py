"""The three roles that a store's users are made for, each with what it needs and no more."""

from __future__ import annotations

from dataclasses import dataclass

ROLES = ("producer", "worker", "monitor")
"""Who sends; who runs tasks; who only looks."""

PASSWORD = "CHANGE-ME"  # noqa: S105 - stands for one
"""Where each user's own password is to be put."""


@dataclass(frozen=True, slots=True)
class Role:
    """One role of one store."""

    name: str
    """One of :data:`ROLES`."""
    user: str
    """The name of its user."""
    statements: tuple[str, ...]
    """What makes the user, in the store's own language, one a line.  :data:`PASSWORD` stands for its password."""
    notes: tuple[str, ...] = ()
    """What to know about it."""
