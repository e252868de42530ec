"""The HTTP port: `/livez`, `/readyz`, `/metrics`, `/schemas`, to be read and nothing else."""

import hmac
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from types import TracebackType
from typing import Self

import structlog

from worker.errors import ConfigError
from worker.observability.health import Answer, Probes, answer, as_json
from worker.observability.metrics import CONTENT_TYPE

_log = structlog.get_logger()

_MAX_REQUEST_BYTES = 16_384
_MAX_REQUEST_SECONDS = 10.0
_MAX_CONNECTIONS = 32
_LOOK_SECONDS = 0.1
_METHOD_NOT_ALLOWED = 405
_UNAUTHORIZED = 401
_FAILED = 500
_OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""Answered without a token: probes have none, and what they tell is no secret."""


class HealthServer:
    """Answers on a port of its own from daemon threads. A context manager: listens on entry, closed on exit."""

    def __init__(self, probes: Probes, host: str = "127.0.0.1", port: int = 8080, token: str | None = None) -> None:
        """Port 0 takes a free one; `port` then says which. With a `token`, all but probes have to show it."""
        self._probes = probes
        self._token = token
        self._address = (host, port)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._address[1] if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        host, port = self._address
        try:
            self._server = _Server(self._address, self._probes, self._token)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"http.host and http.port: {host}:{port} cannot be listened on: name a free port, or 0"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=[_LOOK_SECONDS], name="health", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening. May be repeated."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None


class _Server(ThreadingHTTPServer):
    """At most so many connections at once, each with a bound on its bytes and its time."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128  # five by default: a crowd of connections would make a probe wait for seconds

    def __init__(self, address: tuple[str, int], probes: Probes, token: str | None) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.probes = probes
        self.expected = None if token is None else f"Bearer {token}".encode()
        self._slots = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking a name server who we are, as the standard library would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def verify_request(self, request: object, client_address: object) -> bool:
        """Whether there is a free slot; the connection is dropped when there is none."""
        del request, client_address
        return self._slots.acquire(blocking=False)

    def process_request_thread(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override] # the socket is always one here
        """Answer, cutting the connection off when its time is over."""
        deadline = threading.Timer(_MAX_REQUEST_SECONDS, _cut, [request])
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._slots.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: _Server
    server_version = "worker"
    sys_version = ""
    timeout = _MAX_REQUEST_SECONDS

    def setup(self) -> None:
        """Read no more than a request may have."""
        super().setup()
        self.rfile = _Bounded(self.rfile)  # type: ignore[assignment] # only readline is ever called on it

    def do_GET(self) -> None:
        """Answer with a body."""
        self._send(self._answer(), with_body=True)

    def do_HEAD(self) -> None:
        """Answer without one."""
        self._send(self._answer(), with_body=False)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse, without a word of what was asked."""
        del message, explain
        unsupported = code == 501  # noqa: PLR2004 - what the standard library says of a method it has no function for
        self._send(as_json(_METHOD_NOT_ALLOWED if unsupported else code, {"error": "refused"}), with_body=True)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing: probes come every few seconds."""

    def _answer(self) -> Answer:
        path = self.path.partition("?")[0]
        if path not in _OPEN_PATHS and not self._is_allowed():
            return as_json(_UNAUTHORIZED, {"error": "expected the token of http.token: Authorization: Bearer …"})
        try:
            return answer(path, self.server.probes, CONTENT_TYPE)
        except Exception:  # noqa: BLE001 - a probe that fails must not take the port with it
            _log.exception("health.answer_failed")
            return as_json(_FAILED, {"error": "failed"})

    def _is_allowed(self) -> bool:
        expected = self.server.expected
        shown = self.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        return expected is None or hmac.compare_digest(expected, shown)

    def _send(self, reply: Answer, *, with_body: bool) -> None:
        self.close_connection = True
        self.send_response(reply.status)
        if reply.status == _METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if reply.status == _UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if with_body:
            self.wfile.write(reply.body)


class _Bounded:
    """The lines of a stream, until a request's share of bytes is used up."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream = stream
        self._left = _MAX_REQUEST_BYTES

    def readline(self, limit: int = -1) -> bytes:
        """The next line, or nothing any more."""
        allowed = self._left if limit < 0 else min(limit, self._left)
        line = self._stream.readline(allowed)
        self._left -= len(line)
        return line

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    @property
    def closed(self) -> bool:
        """Whether the stream is closed."""
        return self._stream.closed


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended meanwhile
