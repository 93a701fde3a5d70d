"""Where the shop's parts find each other: one small file in the output folder, written by the demo when it starts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

FILE_NAME = "settings.json"
HOME_VARIABLE = "SHOP_HOME"
DEFAULT_HOME = Path("demo-output")

PREVIEWS_BOUND = 20
"""How many previews may wait."""


@dataclass(frozen=True, slots=True)
class ShopSettings:
    """What every process of the shop must know."""

    home: Path
    """The output folder."""
    broker: str
    backend: str
    key_prefix: str
    """Put before every key on Redis, and the schema's name on PostgreSQL, so that runs do not meet each other or anything else on
    that server."""
    smtp_host: str = "127.0.0.1"
    smtp_port: int = 25

    @property
    def uploads(self) -> Path:
        return self.home / "uploads"

    @property
    def orders(self) -> Path:
        return self.home / "orders"

    @property
    def pictures(self) -> Path:
        return self.home / "pictures"

    @property
    def receipts(self) -> Path:
        return self.home / "receipts"

    @property
    def mailbox(self) -> Path:
        return self.home / "mailbox"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def journal(self) -> Path:
        return self.home / "journal.jsonl"

    @property
    def mail_outage(self) -> Path:
        """While this file exists the mail server is down."""
        return self.home / "mail-server-is-down"

    @property
    def refused_mails(self) -> Path:
        return self.home / "refused-mails.jsonl"

    def save(self) -> None:
        """Write the file, for this user's eyes only: URLs may hold passwords."""
        file = self.home / FILE_NAME
        file.touch(mode=0o600)
        file.write_text(json.dumps({**asdict(self), "home": str(self.home)}, indent=2), encoding="utf-8")


def load() -> ShopSettings:
    """The settings of the shop in ``$SHOP_HOME``, by default ``./demo-output``.

    Raises:
        SystemExit: no demo has run there.
    """
    home = Path(os.environ.get(HOME_VARIABLE) or DEFAULT_HOME).absolute()
    try:
        values = json.loads((home / FILE_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SystemExit(f"There is no shop in {home}: run `make demo` first, or set {HOME_VARIABLE}.") from None
    return ShopSettings(**{**values, "home": home})
