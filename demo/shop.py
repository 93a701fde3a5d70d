"""The shop's Celery app: what a Celery team would write, with the production patterns as options of its tasks.

::

    start_order (queue orders) --> resize x 3 (queue images) --> write_receipt --> mail_receipt (queue email)
"""

from __future__ import annotations

import html
import os
import smtplib
import time
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from celery import group
from celery.signals import task_postrun, task_prerun
from PIL import Image, ImageOps

from celeriac import Breaker, Retry
from demo import settings
from demo.broker import connected_app
from demo.journal import Entry, JournalWriter
from demo.orders import SIZES, Order, money

SMTP_ERRORS = (smtplib.SMTPException, OSError)

shop = settings.load()
journal = JournalWriter(shop.journal)

app = connected_app("shop", shop)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_routes={
        "demo.shop.start_order": {"queue": "orders"},
        "demo.shop.resize": {"queue": "images"},
        "demo.shop.write_receipt": {"queue": "email"},
        "demo.shop.mail_receipt": {"queue": "email"},
        "demo.shop.check_address": {"queue": "email"},
        "demo.shop.preview": {"queue": "previews"},
    },
    result_expires=3600,
    broker_connection_retry_on_startup=True,
)

mail_breaker = Breaker("smtp", rate=0.75, minimum=10, window=3, cooldown=1, only=SMTP_ERRORS)
"""Opens when most mails fail, not when a few do."""


# -- the producer --------------------------------------------------------------------------------------------------


@app.task(idempotency_key="order:{order.id}", idempotency_ttl=3600)
def start_order(order: Order) -> str:
    """Send an order's tasks, once however often it is posted.  An order that is none is refused before this runs."""
    pictures = group(resize.s(order_id=order.id, photo=order.photo, size=size) for size in SIZES)
    receipt = write_receipt.s(order_id=order.id, order=order.model_dump(mode="json"))
    mail = mail_receipt.s(order_id=order.id).set(task_id=last_task_id(order.id))
    (pictures | receipt | mail).apply_async()
    return order.id


def last_task_id(order_id: str) -> str:
    """The id of the task that finishes an order; its result tells how the order is doing."""
    return f"mail-{order_id}"


# -- the image pool ------------------------------------------------------------------------------------------------


@app.task
def resize(*, order_id: str, photo: str, size: str) -> dict[str, Any]:
    """Make one picture of an order's photo.  Running twice makes the same file."""
    target = shop.pictures / order_id / f"{size}.jpg"
    with Image.open(shop.uploads / photo) as image:
        image.thumbnail((SIZES[size], SIZES[size]))
        upright = ImageOps.exif_transpose(image).convert("RGB")
    partial = _partial(target)
    upright.save(partial, "JPEG", quality=88)
    partial.replace(target)
    return {"size": size, "file": f"{order_id}/{size}.jpg", "width": upright.width, "height": upright.height}


# -- the email pool ------------------------------------------------------------------------------------------------


@app.task
def write_receipt(pictures: list[dict[str, Any]], *, order_id: str, order: dict[str, Any]) -> dict[str, Any]:
    """Write the receipt, once all pictures are there."""
    bought = Order.model_validate(order)
    target = shop.receipts / f"{order_id}.html"
    partial = _partial(target)
    partial.write_text(_receipt_page(bought, pictures), encoding="utf-8")
    partial.replace(target)
    return {"to": bought.customer.email, "name": bought.customer.name, "total": money(bought.cents)}


@app.task(
    bind=True,
    autoretry_for=SMTP_ERRORS,
    retry_backoff=True,
    retry_backoff_max=8,
    max_retries=10,
    circuit_breaker=mail_breaker,
)
def mail_receipt(self: Any, receipt: dict[str, Any], *, order_id: str) -> str:
    """Mail the receipt.  The message id names the order, so that a second mail would be recognised."""
    message = _mail(receipt, order_id)
    with smtplib.SMTP(shop.smtp_host, shop.smtp_port, timeout=10) as server:
        server.send_message(message)
    return f"mailed to {receipt['to']} after {self.request.retries} retries"


@app.task(retries={kind: Retry.fixed(0.5, jitter=50, times=40) for kind in SMTP_ERRORS}, circuit_breaker=mail_breaker)
def check_address(email: str) -> str:
    """Ask the mail server whether it would take a mail to this address."""
    with smtplib.SMTP(shop.smtp_host, shop.smtp_port, timeout=10) as server:
        server.ehlo_or_helo_if_needed()
        for code, text in (server.mail("receipts@shop.example.com"), server.rcpt(email)):
            if code != 250:
                raise smtplib.SMTPResponseException(code, text)
    return f"{email} takes mail"


@app.task
def preview(photo: str) -> None:
    """A preview of a photo.  No pool serves its queue, which is bounded."""


@app.task
def health_check() -> float:
    """Answers from whichever queue it is sent to."""
    return time.time()


def _partial(target: Path) -> Path:
    """A name to write under before renaming: a process that dies while it writes leaves no half file behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.name}.{os.getpid()}")


def _receipt_page(order: Order, pictures: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{item.quantity} &times; {item.product}<td align=right>{money(item.cents)}" for item in order.items
    )
    links = " · ".join(_picture_link(picture) for picture in pictures)
    return f"""<!doctype html>
<meta charset="utf-8"><title>Receipt {order.id}</title>
<body style="font: 16px/1.5 system-ui; max-width: 40rem; margin: 3rem auto">
<h1>Thank you, {html.escape(order.customer.name)}</h1>
<p><img src="../pictures/{order.id}/medium.jpg" alt="Your photo" style="max-width: 100%; border-radius: 8px">
<table width="100%">{rows}<tr><th align=left>Total<th align=right>{money(order.cents)}</table>
<p>Order {order.id}. Your pictures: {links}
"""


def _picture_link(picture: dict[str, Any]) -> str:
    return '<a href="../pictures/{file}">{size}</a> ({width} &times; {height})'.format_map(picture)


def _mail(receipt: dict[str, Any], order_id: str) -> EmailMessage:
    message = EmailMessage()
    message["Message-ID"] = f"<{order_id}@shop.example.com>"
    message["From"] = "Print shop <receipts@shop.example.com>"
    message["To"] = receipt["to"]
    message["Subject"] = f"Your order {order_id}: {receipt['total']}"
    message.set_content(f"Dear {receipt['name']},\n\nthank you for {receipt['total']}. Your receipt is attached.\n")
    page = (shop.receipts / f"{order_id}.html").read_text(encoding="utf-8")
    message.add_attachment(page, subtype="html", filename=f"{order_id}.html")
    thumb = (shop.pictures / order_id / "thumb.jpg").read_bytes()
    message.add_attachment(thumb, maintype="image", subtype="jpeg", filename="thumb.jpg")
    return message


# -- the journal ---------------------------------------------------------------------------------------------------


@task_prerun.connect
def note_start(task_id: str, task: Any, kwargs: dict[str, Any], **_: Any) -> None:
    """Write down that a body is about to start."""
    if _order_of(kwargs):
        request = task.request
        journal.write(
            Entry(
                **_about(task_id, task, kwargs),
                event="start",
                redelivered=bool((request.delivery_info or {}).get("redelivered")),
                sent=request.get("celeriac-sent"),
            )
        )


@task_postrun.connect
def note_end(task_id: str, task: Any, kwargs: dict[str, Any], state: str | None = None, **_: Any) -> None:
    """Write down that a body has ended, and how."""
    if _order_of(kwargs):
        journal.write(Entry(**_about(task_id, task, kwargs), event="end", state=state or ""))


def _order_of(kwargs: dict[str, Any]) -> str:
    """The order that a task is about; empty for none."""
    return str(kwargs.get("order_id") or (kwargs.get("order") or {}).get("id") or "")


def _about(task_id: str, task: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": task.name.rpartition(".")[2],
        "task_id": task_id,
        "order_id": _order_of(kwargs),
        "detail": kwargs.get("size", ""),
        "at": time.time(),
        "pid": os.getpid(),
        "retries": task.request.retries,
    }
