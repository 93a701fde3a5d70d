"""The shop's Celery app: what a Celery team would write, with one word changed.

::

    place_order --> resize x 3 (queue images) --> write_receipt --> mail_receipt (queue email)
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

from celeriac import Celery
from demo import settings
from demo.journal import Entry, JournalWriter
from demo.orders import SIZES, Order, money

QUEUES = ("images", "email")

shop = settings.load()
journal = JournalWriter(shop.journal)


def own_place(url: str, prefix: str) -> dict[str, str]:
    """Options by which this run meets no other, nor anything else on that server."""
    if url.startswith("redis"):
        return {"global_keyprefix": prefix}
    if url.startswith("postgres"):
        return {"schema": prefix.rstrip(":").replace("-", "_")}
    return {}


app = Celery("shop", broker=shop.broker, backend=shop.backend)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_routes={
        "demo.shop.resize": {"queue": "images"},
        "demo.shop.write_receipt": {"queue": "email"},
        "demo.shop.mail_receipt": {"queue": "email"},
    },
    result_expires=3600,
    broker_connection_retry_on_startup=True,
)
app.conf.broker_transport_options = own_place(shop.broker, shop.key_prefix)
app.conf.result_backend_transport_options = own_place(shop.backend, shop.key_prefix)


# -- the producer --------------------------------------------------------------------------------------------------


def place_order(order: Order) -> None:
    """Send an order's tasks."""
    pictures = group(resize.s(order_id=order.id, photo=order.photo, size=size) for size in SIZES)
    receipt = write_receipt.s(order_id=order.id, order=order.model_dump(mode="json"))
    mail = mail_receipt.s(order_id=order.id).set(task_id=last_task_id(order.id))
    (pictures | receipt | mail).apply_async()


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
    autoretry_for=(smtplib.SMTPException, OSError),
    retry_backoff=True,
    retry_backoff_max=8,
    max_retries=10,
)
def mail_receipt(self: Any, receipt: dict[str, Any], *, order_id: str) -> str:
    """Mail the receipt.  The message id names the order, so that a second mail would be recognised."""
    message = _mail(receipt, order_id)
    with smtplib.SMTP(shop.smtp_host, shop.smtp_port, timeout=10) as server:
        server.send_message(message)
    return f"mailed to {receipt['to']} after {self.request.retries} retries"


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
    if "order_id" in kwargs:
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
    if "order_id" in kwargs:
        journal.write(Entry(**_about(task_id, task, kwargs), event="end", state=state or ""))


def _about(task_id: str, task: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": task.name.rpartition(".")[2],
        "task_id": task_id,
        "order_id": kwargs["order_id"],
        "detail": kwargs.get("size", ""),
        "at": time.time(),
        "pid": os.getpid(),
        "retries": task.request.retries,
    }
