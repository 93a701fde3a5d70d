"""Looks at what really lies on the disk after a run: pictures, receipts, mails."""

from __future__ import annotations

import json
import mailbox
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from PIL import Image, ImageOps

from demo.orders import SIZES
from demo.settings import ShopSettings


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found."""

    pictures: int
    receipts: int
    mails: int
    """Orders with at least one mail."""
    duplicate_mails: int
    problems: tuple[str, ...]
    """One line for each thing that is missing, broken or not as it should be."""


def audit(shop: ShopSettings, client: httpx.Client, order_ids: Iterable[str]) -> Audit:
    """Check each order's pictures, receipt, mail and stored result."""
    ids = list(order_ids)
    with ThreadPoolExecutor(4) as threads:
        pictures = [problem for found in threads.map(partial(picture_problems, shop), ids) for problem in found]
        states = list(threads.map(partial(_state_problem, client), ids))
    receipts = [f"{order}: no receipt" for order in ids if not _is_written(shop.receipts / f"{order}.html")]
    mails = count_mails(shop.mailbox)
    unmailed = [f"{order}: no mail" for order in ids if not mails[order]]
    unknown = [f"a mail for {order!r}, which nobody ordered" for order in mails.keys() - set(ids)]
    return Audit(
        pictures=len(ids) * len(SIZES) - len(pictures),
        receipts=len(ids) - len(receipts),
        mails=len(ids) - len(unmailed),
        duplicate_mails=sum(count - 1 for count in mails.values()),
        problems=(*pictures, *receipts, *unmailed, *unknown, *filter(None, states)),
    )


def picture_problems(shop: ShopSettings, order_id: str) -> list[str]:
    """What is wrong with the pictures of one order: at most one line for each."""
    order = json.loads((shop.orders / f"{order_id}.json").read_text(encoding="utf-8"))
    original = _upright_size(shop.uploads / order["photo"])
    checks = (
        (size, _picture_problem(shop.pictures / order_id / f"{size}.jpg", original, SIZES[size])) for size in SIZES
    )
    return [f"{order_id}: picture {size} {problem}" for size, problem in checks if problem]


def _upright_size(photo: Path) -> tuple[int, int] | None:
    """The size of an uploaded photo as people look at it, or None when it cannot be read any more."""
    try:
        with Image.open(photo) as image:
            return ImageOps.exif_transpose(image).size
    except OSError:
        return None


def _picture_problem(path: Path, original: tuple[int, int] | None, side: int) -> str:
    try:
        with Image.open(path) as picture:
            picture.load()
            if original is None:
                return "cannot be compared with its photo, which is broken"
            return "" if _fits(picture.size, original, side) else f"has the wrong size {picture.size}"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"is broken: {error}"


def _fits(size: tuple[int, int], original: tuple[int, int], side: int) -> bool:
    """Whether a picture has the right longest side and, within a pixel, the photo's proportions."""
    width, height = size
    scale = min(1.0, side / max(original))
    return abs(width - original[0] * scale) <= 1 and abs(height - original[1] * scale) <= 1


def count_mails(folder: Path) -> Counter[str]:
    """How many mails there are for each order."""
    messages = mailbox.Maildir(folder, create=True)
    return Counter(str(message["Message-ID"]).strip("<>").partition("@")[0] for message in messages)


def _state_problem(client: httpx.Client, order_id: str) -> str:
    status = client.get(f"/orders/{order_id}").json()
    if status["state"] == "SUCCESS":
        return ""
    return f"{order_id}: the stored result says {status['state']} {status['result'] or ''}".rstrip()


def _is_written(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
