"""The variants of :mod:`celeriac.broker`, one file each."""
