"""``python -m demo``: the reference system in one command.  See README.md beside this file."""

from __future__ import annotations

import sys

from demo.children import DemoError

try:
    from demo.command import main
except ModuleNotFoundError as error:
    sys.exit(f"The demo needs {error.name}: pip install 'celeriac[demo]', or run `make demo`.")

if __name__ == "__main__":
    try:
        sys.exit(main())
    except DemoError as error:
        sys.exit(f"\n{error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
