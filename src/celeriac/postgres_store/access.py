"""The rights that each role needs on PostgreSQL, as GRANTs.

The schema's functions run with the rights of whoever calls them, so a role needs both: to call what it uses, and what that does.
The schema is made by its owner (``celeriac migrate`` or a worker of that role); these roles only use it.
"""

from __future__ import annotations

from collections.abc import Mapping

from celeriac.access import PASSWORD, Role


def postgres_roles(
    schema: str, user_prefix: str, *, control: bool = False, bounded: Mapping[str, bool] | None = None
) -> list[Role]:
    """All three.

    Args:
        schema: of the store.
        user_prefix: what the users' names begin with.
        control: let monitors send control commands and hear events.
        bounded: queues of bounded length, and whether their oldest messages make room.
    """
    return [
        _role("producer", user_prefix, schema, [*_producer(schema), *_sending_within_bounds(schema, bounded or {})]),
        _role("worker", user_prefix, schema, _worker(schema)),
        _role("monitor", user_prefix, schema, [*_monitor(schema), *(_commanding(schema) if control else ())]),
    ]


def _role(name: str, prefix: str, schema: str, grants: list[str]) -> Role:
    user = f"{prefix}{name}"
    quoted = f'"{user}"'
    statements = [
        f"CREATE ROLE {quoted} LOGIN PASSWORD '{PASSWORD}';",
        f"GRANT USAGE ON SCHEMA {schema} TO {quoted};",
        f"GRANT SELECT ON {schema}.migrations TO {quoted};",
        *(f"GRANT {grant} TO {quoted};" for grant in grants),
    ]
    return Role(name, user, tuple(statements))


def _producer(schema: str) -> list[str]:
    return [
        f"INSERT ON {schema}.messages, {schema}.scheduled",
        f"USAGE ON ALL SEQUENCES IN SCHEMA {schema}",
        f"SELECT ON {schema}.results",
        f"SELECT, INSERT, UPDATE, DELETE ON {schema}.groups, {schema}.chords, {schema}.waiters, {schema}.keyvalues",
    ]


def _sending_within_bounds(schema: str, bounded: Mapping[str, bool]) -> list[str]:
    """A sender to a bounded queue counts what is there; where the oldest make room, it moves them to the dead letters.  Rights go by
    tables, not by queues.
    """
    if any(bounded.values()):
        return [
            f"SELECT, UPDATE, DELETE ON {schema}.messages",
            f"SELECT (queue) ON {schema}.scheduled",
            f"SELECT, INSERT, DELETE ON {schema}.dead",
        ]
    return [f"SELECT (queue, owner) ON {schema}.messages", f"SELECT (queue) ON {schema}.scheduled"] if bounded else []


def _worker(schema: str) -> list[str]:
    return [
        f"SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema}",
        f"USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema}",
    ]


def _monitor(schema: str) -> list[str]:
    return [f"SELECT ON ALL TABLES IN SCHEMA {schema}"]


def _commanding(schema: str) -> list[str]:
    tables = ", ".join(f"{schema}.{table}" for table in ("mailboxes", "mailbox_messages", "bindings", "waiters"))
    return [f"SELECT, INSERT, UPDATE, DELETE ON {tables}", f"USAGE ON ALL SEQUENCES IN SCHEMA {schema}"]
