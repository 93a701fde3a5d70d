"""The variants of :mod:`celeriac.backend`, one file each."""
