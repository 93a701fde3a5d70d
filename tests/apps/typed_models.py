"""What the tasks of :mod:`tests.apps.typed` are given."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from pydantic import AliasChoices, BaseModel, ConfigDict, Field


class Speed(enum.Enum):
    SLOW = "slow"
    FAST = "fast"


class Line(BaseModel):
    sku: str
    quantity: int = Field(gt=0)


class Order(BaseModel):
    id: UUID
    key: str
    at: datetime
    price: Decimal
    lines: list[Line]
    speed: Speed | None = None
    note: str = ""


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    at: datetime
    key: str


@dataclass
class Point:
    x: float
    y: float


# Version 1 of the payload was ``send(address, text)``; in version 2 the address is a model and comes second.
class Address(BaseModel):
    # Version 1 of this model called it ``mail``.
    email: str = Field(validation_alias=AliasChoices("email", "mail"))
    name: str = "you"


def upgrade_send(version, args, kwargs):
    address, text = args
    return (text, {"mail": address}), kwargs
