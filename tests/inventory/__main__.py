"""Writes docs/compatibility.md."""

from __future__ import annotations

from tests.inventory.page import PAGE, page

PAGE.write_text(page())
