"""A door before a schema registry: TLS, and basic authentication behind it, as shops put before theirs."""

import base64
import http.client
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.certificates import Authority
from tests.support.schema_registry import RegistryUnderTest

USER, PASSWORD = "labeller", "hunter-2-registry"
_FORWARD_SECONDS = 60


@contextmanager
def guarded(registry: RegistryUnderTest, authority: Authority, *, wants_certificate: bool = False) -> Iterator[str]:
    """The address of `registry` behind TLS for those who have the password, and a certificate if that is wanted."""
    certificate, key, _ = authority.issue("registry-door")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority.ca)
    context.verify_mode = ssl.CERT_REQUIRED if wants_certificate else ssl.CERT_NONE
    server = _Door(("127.0.0.1", 0), _handler(registry))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}{urllib.parse.urlsplit(registry.url).path}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Door(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that keeps its connection would keep the test

    def handle_error(self, *_: object) -> None:
        """Say nothing: handshakes that fail are what some tests are about."""


def _handler(registry: RegistryUnderTest) -> type[BaseHTTPRequestHandler]:
    behind = urllib.parse.urlsplit(registry.url).netloc
    welcome = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the names are the library's
            self._forward()

        def do_POST(self) -> None:  # as above
            self._forward()

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers["Authorization"] != welcome:
                self._answer(401, b'{"error_code": 401, "message": "unauthorized"}')
                return
            connection = http.client.HTTPConnection(behind, timeout=_FORWARD_SECONDS)
            try:
                connection.request(self.command, self.path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                self._answer(answer.status, answer.read())
            finally:
                connection.close()

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    return Handler
