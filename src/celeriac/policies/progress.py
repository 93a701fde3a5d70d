"""How far a task is, how fast it goes, and when it will be done: arithmetic over what it reports."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

SMOOTHING_SECONDS = 30.0
"""How far back the rate looks: what was reported longer ago counts for a third and less.  Too short, and the estimate jumps about;
too long, and it is slow to see that the work has become slower."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a task last said of itself.  Moments are seconds since the epoch."""

    task: str
    task_id: str
    done: float
    total: float | None
    """Of what ``done`` is a part; ``None`` when the task cannot know."""
    note: str
    started_at: float
    """When it first reported, in this run."""
    at: float
    """When it last reported."""
    rate: float | None = None
    """Done in a second, lately; ``None`` until it has reported twice."""
    worker: str = ""

    @property
    def fraction(self) -> float | None:
        """Between 0 and 1."""
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def seconds_left(self) -> float | None:
        """An estimate; ``None`` where there is no telling."""
        if self.total is None or not self.rate or self.rate < 0:
            return None
        return max(0.0, (self.total - self.done) / self.rate)

    def further(self, done: float, total: float | None, note: str, now: float) -> Progress:
        """The next report.

        The rate is an exponentially weighted mean over irregular intervals: the newest one weighs
        ``1 - exp(-interval / SMOOTHING_SECONDS)``, or its share of the time since the start while that is more.
        """
        interval = now - self.at
        rate = self.rate
        if interval > 0:
            newest = (done - self.done) / interval
            weight = max(1 - 2.718281828459045 ** (-interval / SMOOTHING_SECONDS), interval / (now - self.started_at))
            rate = newest if rate is None else rate + weight * (newest - rate)
        return replace(self, done=done, total=total, note=note, at=max(now, self.at), rate=rate)

    def encode(self) -> bytes:
        """For the store."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, raw: bytes) -> Progress:
        """From the store."""
        known = json.loads(raw)
        return cls(**{name: known[name] for name in cls.__slots__ if name in known})
