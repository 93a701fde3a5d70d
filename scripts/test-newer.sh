#!/bin/sh
# Tests on the servers of Debian's next release: RabbitMQ 4, Redis 8 and Valkey 8, unpacked into .venv/servers/next (900 MB).
#   scripts/test-newer.sh [ARGUMENTS OF PYTEST]
# Takes root (chroot, mount) and debootstrap.
set -eu
cd "$(dirname "$0")/.."

RELEASE=trixie
root=$PWD/.venv/servers/next

leave_out() {
    echo "$1: the tests on newer servers are left out."
    exit 0
}
[ "$(id -u)" = 0 ] || leave_out "Not root"
command -v debootstrap >/dev/null || leave_out "No debootstrap (on Debian and Ubuntu: sudo apt-get install debootstrap)"
unshare --mount true 2>/dev/null || leave_out "No mounts here"

[ -e "$root/.complete" ] || {
    echo "Fetching RabbitMQ, Redis and Valkey of Debian $RELEASE."
    rm -rf "$root"
    mkdir -p "$root"
    debootstrap --variant=minbase --include=valkey-server,redis-server,rabbitmq-server "$RELEASE" "$root" >"$root.log" 2>&1 ||
        leave_out "debootstrap could not fetch them (see $root.log)"
    touch "$root/.complete"
}

# A program that starts another inside the tree, where the tests' folders are in their places, too.
inside() {
    cat >"$root/$1.sh" <<END
#!/bin/sh
exec unshare --mount sh -c 'mount --bind /tmp "\$0/tmp" && mount --rbind /dev "\$0/dev" && mount -t proc proc "\$0/proc" &&
    exec chroot "\$0" "\$@"' "$root" "$2" "\$@"
END
    chmod +x "$root/$1.sh"
    echo "$root/$1.sh"
}

run() {
    echo "$1"
    engine=$2
    shift 2
    .venv/bin/python -m pytest -q -n "${TEST_PROCESSES:-3}" --dist loadscope -k "$engine" tests/conformance "$@" || failed="$failed $engine"
}

failed=
rabbitmq=$(inside rabbitmq-server /usr/lib/rabbitmq/bin/rabbitmq-server)
RABBITMQ_SERVER=$rabbitmq run "RabbitMQ 4" rabbit "$@"
RABBITMQ_SERVER=$rabbitmq RABBITMQ_OWN_QUEUES=quorum run "RabbitMQ 4, Celeriac's own queues as in a cluster" rabbit "$@"
REDIS_SERVER=$(inside valkey-server /usr/bin/valkey-server) run "Valkey 8" redis "$@"
REDIS_SERVER=$(inside redis-server /usr/bin/redis-server) run "Redis 8" redis "$@"
VALKEY_SERVER=$root/valkey-server.sh .venv/bin/python -m pytest -q tests/test_redis_forms.py -k valkey || failed="$failed valkey"
[ -z "$failed" ] || {
    echo "Failed on newer servers:$failed" >&2
    exit 1
}
