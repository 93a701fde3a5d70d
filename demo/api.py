"""The shop's HTTP API: takes photos and orders, hands orders to the producer, and tells how they are doing.

``python -m demo.api FD`` serves on a listening socket that it inherits.
"""

from __future__ import annotations

import hashlib
import html
import io
import socket
import sys
from typing import Annotated, Any

import uvicorn
from celery import exceptions
from fastapi import Body, FastAPI, HTTPException, Path, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from kombu.exceptions import OperationalError
from PIL import Image, UnidentifiedImageError

from celeriac import QueueFull
from demo.broker import QUEUES
from demo.orders import ORDER_ID, SIZES, Order
from demo.shop import app as celery_app
from demo.shop import check_address, health_check, last_task_id, preview, shop, start_order

PATIENCE = 1.0
"""Seconds that a health check waits for each pool of workers."""

api = FastAPI(title="Print shop", description="The reference system of Celeriac")

OrderId = Annotated[str, Path(pattern=f"^{ORDER_ID}$")]


@api.post("/photos", status_code=201)
def upload_photo(photo: Annotated[bytes, Body(media_type="image/*")] = b"") -> dict[str, Any]:
    """Keep a photo; the answer has its name.  Uploading it again changes nothing."""
    try:
        with Image.open(io.BytesIO(photo)) as image:
            image.load()
            suffix = (image.format or "image").lower()
    except UnidentifiedImageError as error:
        raise _refused((), "not a photo in a format that Pillow reads") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _refused((), f"not a photo that can be read: {error}") from error
    name = f"{hashlib.sha256(photo).hexdigest()[:16]}.{suffix}"
    (shop.uploads / name).write_bytes(photo)
    return {"photo": name, "width": image.width, "height": image.height}


@api.post("/orders", status_code=202)
def order(order: Order) -> dict[str, Any]:
    """Accept an order and have its work started.  Posting it again changes nothing: its idempotency key is taken."""
    if not (shop.uploads / order.photo).exists():
        raise _refused(("photo",), "no such photo was uploaded")
    (shop.orders / f"{order.id}.json").write_text(order.model_dump_json(), encoding="utf-8")
    try:
        task = start_order.delay(order=order)
    except OperationalError as error:
        raise HTTPException(503, f"the broker did not take the order: {error}") from error
    return {"id": order.id, "status": f"/orders/{order.id}", "task": task.id}


@api.post("/addresses", status_code=202)
def address(email: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
    """Have an address checked."""
    return {"task": check_address.delay(email).id}


@api.post("/previews", status_code=202)
def preview_photo(photo: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
    """Have a preview made; 429 while too many wait."""
    try:
        return {"task": preview.delay(photo).id}
    except QueueFull as error:
        raise HTTPException(429, str(error), {"Retry-After": "60"}) from error


@api.get("/tasks/{task_id}")
def task_status(task_id: str) -> dict[str, str]:
    """How a task is doing."""
    return {"id": task_id, "state": celery_app.AsyncResult(task_id).state}


@api.get("/orders/{order_id}")
def order_status(order_id: OrderId) -> dict[str, Any]:
    """How far an order is, as the result store has it."""
    if not (shop.orders / f"{order_id}.json").exists():
        raise HTTPException(404, "no such order")
    result = celery_app.AsyncResult(last_task_id(order_id))
    return {
        "id": order_id,
        "state": result.state,
        "result": str(result.result) if result.ready() else None,
        "pictures": {size: f"/pictures/{order_id}/{size}.jpg" for size in SIZES},
        "receipt": f"/receipts/{order_id}.html",
    }


@api.get("/health")
def health() -> dict[str, str]:
    """Send a task through each queue and wait for its result."""
    waiting = {queue: health_check.apply_async(queue=queue) for queue in QUEUES}
    for queue, result in waiting.items():
        try:
            result.get(timeout=PATIENCE)
        except exceptions.TimeoutError as error:
            raise HTTPException(503, f"no worker answers on queue {queue!r}") from error
    return dict.fromkeys(waiting, "ok")


@api.get("/", response_class=HTMLResponse)
def front_page() -> str:
    """The latest orders, with their pictures."""
    latest = sorted(shop.receipts.glob("[!.]*.html"), key=lambda path: path.stat().st_mtime, reverse=True)[:48]
    cards = "".join(
        f'<a href="/receipts/{html.escape(page.name)}"><img src="/pictures/{html.escape(page.stem)}/thumb.jpg"'
        f' alt="{html.escape(page.stem)}" width="200"></a> '
        for page in latest
    )
    return f"""<!doctype html><meta charset="utf-8"><title>Print shop</title>
<body style="font: 16px/1.5 system-ui; max-width: 70rem; margin: 3rem auto">
<h1>Print shop</h1><p>The latest orders. <a href="/docs">Place one yourself</a>.<p>{cards or "None yet."}"""


@api.get("/favicon.ico", include_in_schema=False)
def favicon() -> Response:
    return Response(status_code=204)


def _refused(place: tuple[str, ...], reason: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("body", *place), "msg": reason, "type": "value_error"}])


def main() -> None:
    for folder in (shop.pictures, shop.receipts):
        folder.mkdir(exist_ok=True)
    api.mount("/pictures", StaticFiles(directory=shop.pictures))
    api.mount("/receipts", StaticFiles(directory=shop.receipts))
    server = uvicorn.Server(uvicorn.Config(api, log_level="info", access_log=False))
    server.run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


if __name__ == "__main__":
    main()
