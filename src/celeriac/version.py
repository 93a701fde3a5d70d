"""This package's version.  The only place that states it."""

__version__ = "0.1.0"
