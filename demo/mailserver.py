"""An SMTP server that files each mail in a mailbox on disk, now and then says "try again later", and is down when it is told to be.

``python -m demo.mailserver FD SEED`` serves on a listening socket that it inherits.
"""

from __future__ import annotations

import asyncio
import json
import mailbox
import random
import socket
import sys
import time
from collections import Counter
from email import message_from_bytes

from aiosmtpd.smtp import SMTP, Envelope, Session

from demo import settings
from demo.settings import ShopSettings

FAILING_SHARE = 0.15
"""Of all attempts to hand over a mail."""

MOST_FAILURES = 3
"""For one mail, so that every mail arrives in the end."""


class Postmaster:
    """Accepts or refuses each mail; which one, follows from the seed and the mail's id.  During an outage it talks to nobody."""

    def __init__(self, shop: ShopSettings, seed: int) -> None:
        self._mailbox = mailbox.Maildir(shop.mailbox)
        self._refusals = shop.refused_mails
        self._outage = shop.mail_outage
        self._seed = seed
        self._attempts: Counter[str] = Counter()

    async def handle_MAIL(  # noqa: N802 (aiosmtpd's name)
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._outage.exists():
            return "421 4.3.2 Out of service"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 (aiosmtpd's name)
        content = envelope.original_content or b""
        message_id = str(message_from_bytes(content)["Message-ID"])
        self._attempts[message_id] += 1
        if self._refuses(message_id):
            self._note_refusal(message_id)
            return "451 4.3.0 Try again later"
        self._mailbox.add(content)
        return "250 2.0.0 Filed"

    def _refuses(self, message_id: str) -> bool:
        attempt = self._attempts[message_id]
        chance = random.Random(f"mail {self._seed} {message_id} {attempt}").random()
        return attempt <= MOST_FAILURES and chance < FAILING_SHARE

    def _note_refusal(self, message_id: str) -> None:
        line = {"message_id": message_id, "attempt": self._attempts[message_id], "at": time.time()}
        with self._refusals.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


async def serve(listener: socket.socket, postmaster: Postmaster) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(postmaster, hostname="mail.example.com", loop=loop), sock=listener)
    await server.serve_forever()


def main() -> None:
    descriptor, seed = map(int, sys.argv[1:])
    shop = settings.load()
    asyncio.run(serve(socket.socket(fileno=descriptor), Postmaster(shop, seed)))


if __name__ == "__main__":
    main()
