"""The output folder: what belongs to a run is removed before the next, and nothing else is ever touched."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path
from typing import IO

from demo.children import DemoError
from demo.settings import FILE_NAME, ShopSettings

MARKER = ".print-shop-demo"
"""Says that a folder is ours; also the lock that keeps two demos apart."""


def open_home(home: Path) -> IO[str]:
    """Make a folder ready for a run.  The demo has it to itself until the returned file is closed.

    Raises:
        DemoError: it is somebody else's, or in use, or cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        marker = home / MARKER
        if not marker.exists() and any(home.iterdir()):
            raise DemoError(f"{home} is not empty and was not made by this demo: choose another --output.")
        lock = marker.open("w", encoding="utf-8")
    except OSError as error:
        raise DemoError(f"Cannot write to {home}: {error}. Choose another --output.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise DemoError(f"Another demo is running in {home}: stop it, or choose another --output.") from None
    return lock


def clear(shop: ShopSettings) -> None:
    """Remove what a former run left, painted photos aside, and make the folders of this one."""
    for folder in (shop.uploads, shop.orders, shop.pictures, shop.receipts, shop.mailbox, shop.logs):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (shop.journal, shop.refused_mails, shop.home / FILE_NAME, *shop.home.glob("shop.sqlite3*")):
        file.unlink(missing_ok=True)
    for folder in (shop.uploads, shop.orders, shop.pictures, shop.receipts, shop.logs):
        folder.mkdir()
