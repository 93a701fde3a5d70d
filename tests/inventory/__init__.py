"""Celery's whole documented surface, name by name, and what Celeriac makes of it.

``python -m tests.inventory`` writes docs/compatibility.md from these tables; ``tests/test_inventory.py`` walks them against the
Celery that is installed, so that a release with something new fails by its name.
"""
