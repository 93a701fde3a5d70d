"""What the shop keeps."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """An order, and whether it was paid."""

    name = models.CharField(max_length=50)
    is_paid = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.name
