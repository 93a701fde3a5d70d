#!/bin/sh
# Celery's own t/integration and t/smoke, from its source distribution, on a worker of ours; WORKER=stock: on Celery's, to compare.
# They take an hour and Debian's redis-server and rabbitmq-server.  SUITE=integration or SUITE=smoke runs one of them;
# BROKER=rabbitmq: the integration tests with RabbitMQ as the broker in place of Redis.
set -eu
cd "$(dirname "$0")/.."
root="$PWD" place="$PWD/.venv/celerys-own" python="$PWD/.venv/bin/python"

version="$("$python" -c 'import celery; print(celery.__version__)')"
suite="$place/celery-$version"
if [ ! -e "$place/.complete-$version" ]; then
    echo "Fetching the tests of Celery $version."
    mkdir -p "$place"
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary celery --dest "$place" "celery==$version"
    tar --extract --file "$place/celery-$version.tar.gz" --directory "$place"
    rm -rf "$suite/celery" # its tests are to meet the Celery that is installed
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$place/lib" \
        pytest-celery tenacity psutil pytest-order pytest-subtests pytest-click
    touch "$place/.complete-$version"
fi

export PYTHONPATH="$root:$place/lib" PYTHONHASHSEED=0 # the suite makes its parameters of sets
cd "$suite"
run() {
    "$python" -m pytest -p tests.celerys_own.plugin -p no:cacheprovider --no-header -rfE "$@"
}
code=0
if [ "${SUITE:-integration}" = integration ]; then
    run --timeout=60 t/integration --ignore=t/integration/test_backend.py "$@" || code=$?
fi
if [ "${SUITE:-smoke}" = smoke ]; then
    run -n 4 --timeout=240 t/smoke/tests --ignore=t/smoke/tests/test_memcached_backend.py \
        --ignore=t/smoke/tests/test_redis_backend_gevent.py "$@" || code=$?
fi
exit "$code"
