"""Policies: what wraps a run, one per file, behind the contract of :mod:`celeriac.policy`."""
