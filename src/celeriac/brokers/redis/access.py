"""The rights that each role needs on Redis, as ACL rules.

With the selectors of Redis 7 a command is allowed on the keys that it is needed for, and on no others.  Redis 6.2 has one list of
commands and one of keys for each user; there a producer could, for example, delete a queue as well as add to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from celeriac.access import PASSWORD, Role
from celeriac.brokers.redis.options import RedisOptions
from celeriac.brokers.redis.result_keys import ResultKeys

CONNECT = "hello auth ping select client|setname client|id script|load script|exists time multi exec discard"
"""Commands that touch no key."""

SEEN = ("schedule:*", "consumers:*", "parked:*", "lanes:*", "lane:*", "owners", "lease:*", "dead", "kv:*", "kv-names:*")
"""Keys of our own that monitors read."""

BINDING = "evalsha sadd srem smembers scard exists zadd zrem zrangebyscore zrange"
"""What kombu does about an exchange's bindings."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Commands, and the keys and channels that they may be used on."""

    commands: str
    """Names with spaces between."""
    keys: Sequence[str] = ()
    """Patterns, each with its mode before it: ``~`` for all, ``%R~`` to read, ``%W~`` to write."""
    channels: Sequence[str] = ()

    def rules(self) -> Iterator[str]:
        """As ``ACL SETUSER`` takes them."""
        yield from (f"+{command}" for command in self.commands.split())
        yield from self.keys
        yield from (f"&{channel}" for channel in self.channels)


class RedisAccess:
    """The roles for some queues."""

    def __init__(
        self,
        options: RedisOptions,
        queues: Sequence[str],
        results: ResultKeys | None,
        database: int,
        bounded: Mapping[str, bool] | None = None,
    ) -> None:
        """``results``: where results lie, when that is the same server.  ``bounded``: queues of bounded length, and whether their oldest
        messages make room.
        """
        self._bounded = {queue: drops for queue, drops in (bounded or {}).items() if queue in queues}
        self._separator = options.separator
        self._own = f"{_literal(options.key_prefix)}celeriac:"
        self._names = [_literal(queue) for queue in queues]
        self._prefix = _literal(options.key_prefix)
        self._steps = "".join(str(step) for step in options.priority_steps if step)
        self._lists = self._lists_of(self._names)
        self._task = [f"{_literal(results.prefix)}celery-task-meta-*"] if results else []
        self._group = [f"{_literal(results.prefix)}celery-taskset-meta-*"] if results else []
        self._fanout = f"/{database}."

    def _lists_of(self, names: Sequence[str]) -> list[str]:
        # The separator's control characters are written as wildcards: they do not belong on a terminal.
        steps = f"{'?' * len(self._separator)}[{self._steps}]"
        return [f"{self._prefix}{name}{end}" for name in names for end in ("", steps)]

    def roles(self, user_prefix: str, *, control: bool = False, selectors: bool = True) -> list[Role]:
        """All three.

        Args:
            user_prefix: what the users' names begin with.
            control: let monitors send control commands.
            selectors: false for Redis 6.2.
        """
        monitor = [*self._monitor(), *(self._commanding() if control else ())]
        grants = {"producer": self._producer(), "worker": self._worker(), "monitor": monitor}
        notes = (
            () if selectors else ("Redis 6.2 cannot bind a command to its keys: this user can do more than it should.",)
        )
        return [
            Role(name, f"{user_prefix}{name}", (self._statement(f"{user_prefix}{name}", given, selectors),), notes)
            for name, given in grants.items()
        ]

    @staticmethod
    def _statement(user: str, grants: Sequence[Grant], selectors: bool) -> str:  # noqa: FBT001 - one of two forms
        head = ["ACL", "SETUSER", user, "reset", "on", f">{PASSWORD}", *Grant(CONNECT).rules()]
        if selectors:
            return " ".join([*head, *(f"({' '.join(grant.rules())})" for grant in grants)])
        rules = dict.fromkeys(rule for grant in grants for rule in grant.rules())
        return " ".join([*head, *dict.fromkeys(re.sub(r"^%R?W?~", "~", rule) for rule in rules)])

    # -- the roles -------------------------------------------------------------------------------------------------

    def _producer(self) -> list[Grant]:
        schedules = [f"{self._own}schedule:{name}" for name in self._names]
        consumers = [f"{self._own}consumers:{name}" for name in self._names]
        return [
            Grant("evalsha incr", _all(f"{self._own}serial", f"{self._own}kv-version", f"{self._own}kv:*")),
            Grant("get set del", _all(f"{self._own}kv:*")),
            Grant("lpush", _write(*self._lists)),
            Grant("zadd", _write(*schedules)),
            Grant("zcount", _read(*consumers)),
            Grant(BINDING, _all(f"{self._prefix}_kombu.binding*")),
            *self._sending_within_bounds(),
            *self._reading_results(),
            *([Grant("get set setex del incrby expire", _all(*self._group))] if self._group else []),
        ]

    def _sending_within_bounds(self) -> Iterator[Grant]:
        """A sender to a bounded queue counts what is there; where the oldest make room, it moves them to the dead letters."""
        if not self._bounded:
            return
        names = [_literal(queue) for queue in self._bounded]
        lists = self._lists_of(names)
        schedules, parked = ([f"{self._own}{kind}:{name}" for name in names] for kind in ("schedule", "parked"))
        yield Grant("evalsha", _all(f"{self._own}serial", f"{self._own}dead", *schedules, *parked, *self._lists))
        yield Grant("llen", _read(*lists))
        yield Grant("zcard", _read(*schedules))
        yield Grant("get", _read(*parked))
        dropping = self._lists_of([_literal(queue) for queue, drops in self._bounded.items() if drops])
        if dropping:
            yield Grant("lindex rpop", _all(*dropping))
            yield Grant("xadd", _write(f"{self._own}dead"))

    def _worker(self) -> list[Grant]:
        own = [f"{self._own}*"]
        results = [*self._task, *self._group]
        every = [*self._lists, *own, *results]
        # A pattern that is subscribed to must be among these to the letter.
        fanouts = [f"{self._fanout}{name}" for name in ("*", "celery.pidbox", "celeryev", "celeryev/*")]
        return [
            Grant("evalsha", _all(*every)),
            Grant("llen lindex lpush rpush rpop blmove", _all(*self._lists)),
            Grant("llen lindex lpush rpush rpop", _all(f"{self._own}lane:*")),
            Grant("hrandfield hincrby decrby", _all(*own)),
            Grant("hget hset hdel hlen hexists hkeys hmget zadd zrem zscore zcard zcount zrange zrangebyscore", _all(*own)),
            Grant("zremrangebyrank zremrangebyscore incr incrby get set del exists sadd srem smembers", _all(*own)),
            Grant("xadd xlen xrange xrevrange xdel", _all(f"{self._own}dead")),
            *([Grant("get mget set setex del expire exists zadd zcard zrange rpush llen lrange sadd incrby", _all(*results))]
              if results else []),
            Grant("publish subscribe psubscribe unsubscribe punsubscribe", (), [*self._task, *fanouts]),
            *self._control(),
        ]  # fmt: skip

    def _monitor(self) -> list[Grant]:
        own = [f"{self._own}{part}" for part in SEEN]
        return [
            # What a script does is allowed only where its commands are.
            Grant("evalsha", _all(*self._lists, *own)),
            Grant("llen lindex lrange", _read(*self._lists)),
            Grant(
                "zcard zcount zrange hlen hexists hget hkeys hrandfield xlen xrange xrevrange get smembers exists",
                _read(*own),
            ),
            *self._reading_results(),
            Grant(
                "subscribe psubscribe unsubscribe punsubscribe",
                (),
                [f"{self._fanout}celeryev", f"{self._fanout}celeryev/*"],
            ),
            Grant(BINDING, _all(f"{self._prefix}_kombu.binding*.celeryev*", f"{self._prefix}_kombu.binding_deadlines")),
            Grant("llen del brpop exists", _all(f"{self._prefix}celeryev.*")),
        ]

    def _reading_results(self) -> Iterator[Grant]:
        if self._task:
            yield Grant("get mget", _read(*self._task, *self._group))
            yield Grant("subscribe unsubscribe", (), self._task)

    def _commanding(self) -> Iterator[Grant]:
        yield Grant("publish", (), [f"{self._fanout}celery.pidbox"])
        deadlines = f"{self._prefix}_kombu.binding_deadlines"
        yield Grant(f"{BINDING} del", _all(f"{self._prefix}_kombu.binding*.pidbox*", deadlines))
        yield Grant("brpop llen del exists", _all(f"{self._prefix}*.reply.celery.pidbox*"))
        yield self._consuming_by_kombu()

    def _control(self) -> Iterator[Grant]:
        mailboxes = [f"{self._prefix}*.pidbox", f"{self._prefix}*.pidbox{'?' * 2}[0-9]", f"{self._prefix}celeryev.*"]
        yield Grant(f"{BINDING} sismember del", _all(f"{self._prefix}_kombu.binding*"))
        yield Grant("lpush brpop llen del exists", _all(*mailboxes))
        yield self._consuming_by_kombu()

    def _consuming_by_kombu(self) -> Grant:
        """A consumer of kombu's looks after what stock workers have left, before anything else."""
        commands = "@hash @sortedset set get del pexpire watch evalsha"
        return Grant(commands, _all(*(f"{self._prefix}unacked{part}" for part in ("", "_index", "_mutex"))))


def _all(*patterns: str) -> list[str]:
    return [f"~{pattern}" for pattern in patterns]


def _read(*patterns: str) -> list[str]:
    return [f"%R~{pattern}" for pattern in patterns]


def _write(*patterns: str) -> list[str]:
    return [f"%W~{pattern}" for pattern in patterns]


def _literal(text: str) -> str:
    r"""A name as a pattern of itself (``[``, ``]``, ``*``, ``?``, ``\`` and spaces mean something in rules)."""
    return re.sub(r"[\s()]", "?", re.sub(r"([\[\]*?\\])", r"\\\1", text))
