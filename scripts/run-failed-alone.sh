#!/usr/bin/env bash
# After `make test` has failed: what failed runs three times, with nothing beside it, and must pass each time.
# Tests that kill processes and count seconds share two cores with each other; this tells what is broken from what was crowded out,
# and names both.  More than five failures are no accident and are not run again.
set -eu
cd "$(dirname "$0")/.."

failed=.pytest_cache/alone
.venv/bin/python - "$failed" <<'PYTHON'
import json, pathlib, sys

found = pathlib.Path(".pytest_cache/v/cache/lastfailed")
names = sorted(json.loads(found.read_text())) if found.exists() else []
if not 1 <= len(names) <= 5:
    sys.exit(f"{len(names)} tests failed: not run again.")
pathlib.Path(sys.argv[1]).write_text("\n".join(names) + "\n")
PYTHON

for _ in 1 2 3; do
    .venv/bin/python -m pytest -p no:cacheprovider "@$failed"
done
echo "UNSTEADY: failed beside other tests, passed three times alone:"
cat "$failed"
