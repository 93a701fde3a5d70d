"""The inventory of Celery's surface is whole, and says nothing that no test shows."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.inventory.page import PAGE, SECTIONS, page
from tests.inventory.row import How

TESTS = Path(__file__).parent


@pytest.mark.parametrize("title", SECTIONS)
def test_nothing_that_celery_has_is_missing(title):
    section, actual = SECTIONS[title]

    found = actual()

    assert found - section.keys() == set(), "new in Celery: see whether it works, and add it to tests/inventory"
    assert section.keys() - found == set(), "gone from Celery: take it out of tests/inventory"


@pytest.mark.parametrize("title", SECTIONS)
def test_every_row_has_a_test_that_there_is_or_a_reason(title):
    for name, row in SECTIONS[title][0].items():
        assert row.test or (row.why and row.how in (How.CELERY, How.DIFFERENT)), name
        assert row.why or row.how is How.HONOURED, name
        if row.test:
            file, _, test = row.test.partition("::")
            assert test in functions_of(file), f"{name}: {row.test} does not exist"


@cache
def functions_of(file: str) -> set[str]:
    path = TESTS / file
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_page_is_what_the_tables_say():
    assert PAGE.read_text() == page(), "run `python -m tests.inventory`"
