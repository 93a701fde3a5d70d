"""TLS on the way to the stores: it works, and a certificate that is not to be trusted is refused in one clear line."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from contextlib import ExitStack, closing

import pytest

from celeriac import Celery
from celeriac.compat import connect
from celeriac.errors import AccessDenied, ConfigurationError, StoreUnavailable
from celeriac.message import Message
from tests.certificates import Authority, Pair
from tests.helpers import free_port, wait_until
from tests.server_postgres import PostgresServer
from tests.server_rabbitmq import RabbitServer
from tests.servers import RedisServer
from tests.workers import Stage

APP = "tests.apps.forms"


class SecureServer(ABC):
    """A server that speaks TLS, with a certificate of a test's choice.  One subclass for each kind of store."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    @abstractmethod
    def start(self, pair: Pair, clients: Authority | None = None) -> None:
        """Start with this certificate; with ``clients`` only those with a certificate of that CA may come."""

    @abstractmethod
    def url(self, ca: Authority, client: Pair | None = None) -> str:
        """The URL that trusts a CA, and shows a client's certificate."""


class SecureRedis(SecureServer):
    def start(self, pair: Pair, clients: Authority | None = None) -> None:
        self.port = free_port()
        tls = ["--tls-port", self.port, "--tls-cert-file", pair.certificate, "--tls-key-file", pair.key]
        tls += ["--tls-ca-cert-file", (clients.certificate if clients else pair.certificate)]
        tls += ["--tls-auth-clients", "yes" if clients else "no"]
        self.server = self._stack.enter_context(RedisServer(options=[str(each) for each in tls]))

    def url(self, ca: Authority, client: Pair | None = None) -> str:
        shown = f"&ssl_certfile={client.certificate}&ssl_keyfile={client.key}" if client else ""
        return f"rediss://localhost:{self.port}/0?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={ca.certificate}{shown}"


class SecureRabbit(SecureServer):
    """The shared server, with one more listener for each test."""

    def __init__(self, stack: ExitStack, shared: RabbitServer) -> None:
        super().__init__(stack)
        self._shared = shared

    def start(self, pair: Pair, clients: Authority | None = None) -> None:
        self.port = free_port()
        self._vhost = self._stack.enter_context(self._shared.vhost()).rpartition("/")[2]
        options = f'[{{certfile, "{pair.certificate}"}}, {{keyfile, "{pair.key}"}}, {{cacertfile, "'
        options += f'{clients.certificate if clients else pair.certificate}"}}, '
        options += "{verify, verify_peer}, {fail_if_no_peer_cert, true}]" if clients else "{verify, verify_none}]"
        self._shared.eval(f'rabbit_networking:start_ssl_listener({{"127.0.0.1", {self.port}}}, {options}, 2).')

    def url(self, ca: Authority, client: Pair | None = None) -> str:
        shown = f"&ssl_certfile={client.certificate}&ssl_keyfile={client.key}" if client else ""
        return f"amqps://guest:guest@localhost:{self.port}/{self._vhost}?ssl_ca_certs={ca.certificate}{shown}"


class SecurePostgres(SecureServer):
    """A database of the shared server, which takes up each test's certificate while it runs."""

    def __init__(self, stack: ExitStack, shared: PostgresServer) -> None:
        super().__init__(stack)
        self._shared = shared

    def start(self, pair: Pair, clients: Authority | None = None) -> None:
        self._database = self._shared.new_database()
        self._stack.callback(self._shared.drop_database, self._database)
        self._stack.callback(self._shared.without_tls)
        self._shared.use_tls(pair.certificate, pair.key, clients and clients.certificate)

    def url(self, ca: Authority, client: Pair | None = None) -> str:
        shown = f"&sslcert={client.certificate}&sslkey={client.key}" if client else ""
        plain = self._shared.database_url(self._database).replace("127.0.0.1", "localhost")
        return f"{plain}?sslmode=verify-full&sslrootcert={ca.certificate}{shown}"

    def sessions_without_tls(self) -> int:
        """Those of broker, results and listener that are in the clear."""
        statement = (
            "SELECT count(*) FILTER (WHERE NOT ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
            "WHERE application_name = 'celeriac' AND datname = current_database()"
        )
        ((clear, sessions),) = self._shared.execute(statement, self._database)
        assert sessions >= 4
        return int(clear)


SERVERS = {"redis": SecureRedis, "rabbitmq": SecureRabbit, "postgres": SecurePostgres}
SHARED = {"rabbitmq": "shared_rabbitmq", "postgres": "shared_postgres"}


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(params=SERVERS)
def server(request):
    with ExitStack() as stack:
        shared = [request.getfixturevalue(SHARED[request.param])] if request.param in SHARED else []
        yield SERVERS[request.param](stack, *shared)


@pytest.fixture
def redis(ca):
    with ExitStack() as stack:
        server = SecureRedis(stack)
        server.start(ca.server())
        yield server


def ping(url, **conf):
    app = Celery("tls", broker=url, set_as_current=False)
    app.conf.update(conf)
    with closing(connect.open_broker(app)) as broker:
        broker.ping()


def refusal(url, **conf):
    """The text with which it is refused."""
    with pytest.raises(StoreUnavailable) as caught:  # AccessDenied is one
        ping(url, **conf)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_tasks_and_results_over_tls(server, ca, tmp_path):
    server.start(ca.server())
    results = f"sqlite:///{tmp_path}/results.sqlite3" if isinstance(server, SecureRabbit) else None
    with Stage(tmp_path, server.url(ca), results, app=APP) as stage, stage.worker():
        results = stage.send_many("note_late", [f"k{n}" for n in range(20)])
        assert [result.get(timeout=10) for result in results] == [f"k{n}" for n in range(20)]
        assert stage.send("note", "later", countdown=0.2).get(timeout=10) == "later"
        assert stage.broker.depth(["celery"])[0].consumers == 2
        if isinstance(server, SecurePostgres):
            assert server.sessions_without_tls() == 0


def test_a_ca_that_did_not_sign_the_certificate(server, ca, tmp_path):
    server.start(ca.server())
    assert "not to be trusted" in (text := refusal(server.url(Authority(tmp_path, "other CA"))))
    assert "CA that signed it" in text


def test_a_certificate_for_another_host(server, ca):
    server.start(ca.server("elsewhere.example"))
    assert "Write the host in the URL as the certificate names it" in refusal(server.url(ca))


def test_a_certificate_that_has_expired(server, ca):
    server.start(ca.server(expired=True))
    assert "It has expired" in refusal(server.url(ca))


def test_a_client_must_show_a_certificate_where_the_server_asks_for_one(server, ca):
    server.start(ca.server(), clients=ca)
    ping(server.url(ca, ca.client("worker")))
    assert "certificate" in refusal(server.url(ca))


def test_a_worker_does_not_start_where_the_certificate_is_not_to_be_trusted(server, ca, tmp_path):
    server.start(ca.server(expired=True))
    with Stage(tmp_path, app=APP) as stage:
        worker = stage.worker(broker=server.url(ca))
        worker.launch()
        assert worker.wait() == 1
        assert "It has expired" in worker.log()
        assert "Traceback" not in worker.log()


# -- Celery's ways of writing it for Redis -----------------------------------------------------------------------------


def test_settings_in_place_of_the_query(redis, ca, tmp_path):
    secure = {"ssl_cert_reqs": "CERT_REQUIRED", "ssl_ca_certs": str(ca.certificate)}
    url = f"redis://localhost:{redis.port}/0"
    with (
        Stage(tmp_path, url, url, app=APP, conf={"broker_use_ssl": secure, "redis_backend_use_ssl": secure}) as stage,
        stage.worker(),
    ):
        assert stage.send("note", "k").get(timeout=10) == "k"


@pytest.mark.parametrize(
    "secure",
    [
        {"ssl_cert_reqs": ssl.CERT_NONE},
        {"ssl_cert_reqs": "none"},
        {"cert_reqs": ssl.CERT_NONE},
    ],
)
def test_no_verification_where_it_is_asked_for(redis, secure):
    ping(f"rediss://localhost:{redis.port}/0", broker_use_ssl=secure)


def test_the_system_is_asked_for_its_cas_where_none_is_given(redis):
    assert "ssl_ca_certs" in refusal(f"redis://localhost:{redis.port}/0", broker_use_ssl=True)


def test_an_option_that_is_none_of_tls_is_refused():
    with pytest.raises(ConfigurationError, match=r"'ssl_ca_cert'; they have .*ssl_ca_certs"):
        ping("rediss://localhost:1/0", broker_use_ssl={"ssl_ca_cert": "/etc/ca.pem"})


def test_a_server_that_does_not_speak_tls(shared_redis):
    quick = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}
    url = f"rediss://localhost:{shared_redis.port}/0?ssl_cert_reqs=none"
    assert "write redis://" in refusal(url, broker_transport_options=quick)


def test_the_send_path_says_it_too(redis, tmp_path):
    app = Celery("tls", broker=redis.url(Authority(tmp_path, "other CA")), set_as_current=False)
    app.conf.task_publish_retry = False
    with pytest.raises(Exception, match="not to be trusted"):
        app.send_task("anything")
    with closing(connect.producer(app)) as broker, pytest.raises(AccessDenied):
        broker.publish([Message("celery", b"{}")])


def test_a_certificate_is_the_login_on_rabbitmq(ca, redis_url, tmp_path):
    """``EXTERNAL``: the server takes the user's name from the certificate, and no password is sent."""
    pair, client, port = ca.server(), ca.client("worker"), free_port()
    config = f"""
        listeners.ssl.1 = 127.0.0.1:{port}
        ssl_options.cacertfile = {ca.certificate}
        ssl_options.certfile = {pair.certificate}
        ssl_options.keyfile = {pair.key}
        ssl_options.verify = verify_peer
        ssl_options.fail_if_no_peer_cert = true
        ssl_cert_login_from = common_name
        auth_mechanisms.1 = EXTERNAL
    """
    conf = {
        "broker_login_method": "EXTERNAL",
        "worker_enable_remote_control": True,
        "broker_use_ssl": {
            "ca_certs": str(ca.certificate),
            "certfile": str(client.certificate),
            "keyfile": str(client.key),
        },
    }
    url = f"amqps://localhost:{port}//"
    with RabbitServer(config=config, plugins="rabbitmq_auth_mechanism_ssl") as server:
        assert "not let in" in refusal(url, **conf) or "refused the login" in refusal(url, **conf)
        server.eval(
            'rabbit_auth_backend_internal:add_user(<<"worker">>, <<>>, <<"tests">>), '
            'rabbit_auth_backend_internal:set_permissions(<<"worker">>, <<"/">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>).'
        )
        with Stage(tmp_path, url, redis_url, app=APP, conf=conf) as stage, stage.worker() as worker:
            assert stage.send("note_late", "in").get(timeout=10) == "in"
            assert wait_until(lambda: stage.client.control.ping(timeout=1.0)) == [{"one@test": {"ok": "pong"}}]
            assert "cannot be read" not in worker.log()  # Redis is not taken for a server behind RabbitMQ's TLS
            assert worker.stop() == 0
        assert "not login_method PLAIN" in refused_setting(url, **{**conf, "broker_login_method": None})


def refused_setting(url, **conf):
    """The text with which a setting is refused."""
    with pytest.raises(ConfigurationError) as caught:
        ping(url, **conf)
    return str(caught.value)
