"""An order, as the API accepts it and as the tasks read it."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Product = Literal["postcard", "poster", "mug", "calendar", "puzzle"]

PRICES: dict[Product, int] = {"postcard": 190, "poster": 1490, "mug": 1250, "calendar": 1990, "puzzle": 2490}
"""In cents."""

SIZES = {"large": 1024, "medium": 512, "thumb": 192}
"""The pictures that are made for each order, by their longest side in pixels.  A smaller photo is not enlarged."""

ORDER_ID = r"[A-Z0-9][A-Z0-9-]{3,31}"
"""An order's id is part of file names, so it has few characters."""

PHOTO_NAME = r"[0-9a-f]{16}\.[a-z0-9]{2,8}"


def _email_address(text: str) -> str:
    """Lets through what may be an address; only a mail server knows for sure."""
    if not re.fullmatch(r"[^@\s<>]+@[^@\s<>.]+(\.[^@\s<>.]+)+", text):
        raise PydanticCustomError("email_address", "not an email address")
    return text


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Customer(_Strict):
    name: Annotated[str, Field(min_length=1, max_length=100)]
    email: Annotated[str, Field(max_length=254), AfterValidator(_email_address)]


class Item(_Strict):
    product: Product
    quantity: Annotated[int, Field(ge=1, le=100)]

    @property
    def cents(self) -> int:
        return PRICES[self.product] * self.quantity


class Order(_Strict):
    id: Annotated[str, Field(pattern=f"^{ORDER_ID}$")]
    customer: Customer
    photo: Annotated[str, Field(pattern=f"^{PHOTO_NAME}$", description="The name that POST /photos answered")]
    items: Annotated[list[Item], Field(min_length=1, max_length=20)]

    @property
    def cents(self) -> int:
        return sum(item.cents for item in self.items)


def money(cents: int) -> str:
    return f"€ {cents // 100}.{cents % 100:02}"


FIRST_NAMES = (
    "Ada",
    "Alan",
    "Barbara",
    "Donald",
    "Edsger",
    "Frances",
    "Grace",
    "Jean",
    "John",
    "Karen",
    "Leslie",
    "Niklaus",
)
LAST_NAMES = ("Álvarez", "Brown", "Diaz", "Kowalska", "Lindqvist", "Müller", "Nakamura", "Okafor", "Rossi", "Sørensen")


def make_order(seed: int, number: int, photos: Sequence[str]) -> dict[str, Any]:
    """The body of the ``number``-th order.  The same seed and photos give the same order."""
    chance = random.Random(f"order {seed} {number}")
    first, last = chance.choice(FIRST_NAMES), chance.choice(LAST_NAMES)
    products = chance.sample(list(PRICES), k=chance.randint(1, 3))
    return {
        "id": f"SHOP-{number:05}",
        "customer": {"name": f"{first} {last}", "email": f"{first.lower()}.{number}@example.com"},
        "photo": photos[number % len(photos)],
        "items": [{"product": product, "quantity": chance.randint(1, 5)} for product in products],
    }


def make_bad_orders(photo: str) -> list[dict[str, Any]]:
    """Orders that must be refused, each for a reason of its own."""
    good = make_order(0, 0, [photo])
    return [
        {**good, "id": "BAD-1", "items": [{"product": "mug", "quantity": 0}]},
        {**good, "id": "BAD-2", "customer": {"name": "Nobody", "email": "nobody"}},
        {**good, "id": "BAD-3", "photo": "0" * 16 + ".jpeg"},
    ]
