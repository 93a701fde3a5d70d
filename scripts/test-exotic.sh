#!/bin/sh
# Tests on a real Kafka and a real Cassandra, from their Maven artefacts.  They take java, mvn, and about 200 MB in .venv/servers.
set -eu
cd "$(dirname "$0")/.."

for program in java mvn; do
    command -v "$program" >/dev/null || {
        echo "No $program: the tests on Kafka and Cassandra are left out.  On Debian and Ubuntu: sudo apt-get install default-jre-headless maven"
        exit 0
    }
done
for server in kafka cassandra; do
    [ -e ".venv/servers/$server/.complete" ] && continue
    echo "Fetching $server."
    mvn --quiet --batch-mode --file "tests/exotic/$server.pom.xml" dependency:copy-dependencies \
        -DoutputDirectory="$PWD/.venv/servers/$server" || {
        echo "Maven could not fetch $server: its test is left out."
        continue
    }
    touch ".venv/servers/$server/.complete"
done
.venv/bin/python -m pip install --quiet --disable-pip-version-check 'cassandra-driver>=3.29' || true
exec .venv/bin/python -m pytest tests/exotic/exotic.py "$@"
