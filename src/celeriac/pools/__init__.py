"""The variants of :mod:`celeriac.pool`, one file each."""
