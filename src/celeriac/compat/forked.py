"""What becomes of a process that a task forked, should it come back from the task's body.

It is a copy of a worker in the middle of a task: it must not store the result a second time, nor take messages.  Its body has
ended, so it ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import Any, NoReturn


def end_with_body(job: Any, request: Any, value: Any) -> NoReturn:
    """End this process as Python would: with the code of a ``SystemExit``, or with 1 and a traceback for another error."""
    code = 0
    with contextlib.suppress(Exception):  # standard streams may be closed, and texts of errors fail
        if isinstance(value, SystemExit):
            code = value.code if isinstance(value.code, int) else int(value.code is not None)
        elif isinstance(value, BaseException):
            code = 1
            traceback.print_exception(value)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    os._exit(code)
