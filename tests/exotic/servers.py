"""Java servers of our own, from the jars that `make test-exotic` fetches into `.venv/servers`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import free_port, wait_until
from tests.servers import ServerMissing, die_with_parent

JARS = Path(sys.prefix, "servers")
START_SECONDS = 90.0

KAFKA = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={directory}/logs
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=true
"""

CASSANDRA = """\
cluster_name: test
num_tokens: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
commitlog_sync: periodic
commitlog_sync_period: 10s
commitlog_directory: {directory}/commitlog
data_file_directories: [{directory}/data]
saved_caches_directory: {directory}/caches
hints_directory: {directory}/hints
cdc_raw_directory: {directory}/cdc
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "127.0.0.1:{storage}"}}]
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
storage_port: {storage}
native_transport_port: {port}
start_native_transport: true
endpoint_snitch: SimpleSnitch
authenticator: AllowAllAuthenticator
authorizer: AllowAllAuthorizer
"""

OPENED = """
java.base/java.io java.base/java.lang java.base/jdk.internal.misc java.base/java.lang.module java.base/java.lang.ref java.base/java.lang.reflect
java.base/java.math java.base/java.net java.base/java.nio java.base/java.util java.base/java.util.concurrent
java.base/java.util.concurrent.atomic java.base/jdk.internal.loader java.base/jdk.internal.math java.base/jdk.internal.module
java.base/jdk.internal.ref java.base/jdk.internal.reflect java.base/jdk.internal.util.jar java.base/jdk.internal.vm
java.base/sun.nio.ch java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry java.rmi/sun.rmi.server
java.rmi/sun.rmi.transport java.rmi/sun.rmi.transport.tcp java.sql/java.sql jdk.management/com.sun.management.internal
"""
"""Modules that Cassandra reaches into, as its own start script says."""


def classpath(name: str) -> str:
    """The jars of a server.  Raises ``ServerMissing``."""
    jars = sorted((JARS / name).glob("*.jar"))
    if not jars or not shutil.which("java"):
        raise ServerMissing(f"no {name}: it takes java, mvn and `make test-exotic`")
    return os.pathsep.join(map(str, jars))


@contextmanager
def java(directory: Path, arguments: list[str], is_up: Callable[[], bool]) -> Iterator[None]:
    """Run a program of Java's until the block ends."""
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*die_with_parent(), "java", *arguments], cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            wait_until(lambda: process.poll() is not None or is_up(), START_SECONDS, log.read_text)
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(directory, ignore_errors=True)


def listens(port: int) -> bool:
    """Whether somebody does on this port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def kafka() -> Iterator[str]:
    """A node; gives its host and port."""
    jars, directory = classpath("kafka"), Path(tempfile.mkdtemp(prefix="celeriac-kafka-"))
    port, controller = free_port(), free_port()
    conf = directory / "server.properties"
    conf.write_text(KAFKA.format(port=port, controller=controller, directory=directory))
    storage = ["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(conf)]
    subprocess.run(["java", "-cp", jars, *storage], check=True, capture_output=True, timeout=60)
    arguments = ["-Xmx384m", "-cp", jars, "kafka.Kafka", str(conf)]
    with java(directory, arguments, lambda: listens(port)):
        yield f"127.0.0.1:{port}"


@contextmanager
def cassandra() -> Iterator[int]:
    """A node; gives its port."""
    jars, directory = classpath("cassandra"), Path(tempfile.mkdtemp(prefix="celeriac-cassandra-"))
    port, storage = free_port(), free_port()
    conf = directory / "cassandra.yaml"
    conf.write_text(CASSANDRA.format(port=port, storage=storage, directory=directory))
    opened = [word for module in OPENED.split() for word in ("--add-opens", f"{module}=ALL-UNNAMED")]
    exported = [word for module in OPENED.split() for word in ("--add-exports", f"{module}=ALL-UNNAMED")]
    settings = {
        "cassandra.config": f"file://{conf}",
        "cassandra.storagedir": str(directory),
        "cassandra-foreground": "yes",
        "cassandra.skip_wait_for_gossip_to_settle": "0",
        "cassandra.ring_delay_ms": "1",
        "jdk.attach.allowAttachSelf": "true",
        "io.netty.tryReflectionSetAccessible": "true",
        "java.io.tmpdir": str(directory),
    }
    options = [f"-D{name}={value}" for name, value in settings.items()]
    main = "org.apache.cassandra.service.CassandraDaemon"
    agent = next((JARS / "cassandra").glob("jamm-*.jar"))
    arguments = ["-Xmx768m", "-Xms256m", f"-javaagent:{agent}", *opened, *exported, *options, "-cp", jars, main]
    with java(directory, arguments, lambda: listens(port)):
        yield port
