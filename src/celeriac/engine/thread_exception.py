"""Raises an exception in another thread (``PyThreadState_SetAsyncExc`` of CPython)."""

from __future__ import annotations

import ctypes
import threading


def raise_in(ident: int, kind: type[BaseException]) -> None:
    """Raise an exception of this class at the thread's next bytecode; in this thread, at once."""
    if ident == threading.get_ident():
        raise kind
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(kind))


def forget() -> None:
    """Drop what is about to be raised in this thread."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), None)
