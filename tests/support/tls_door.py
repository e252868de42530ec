"""A door before a service: TLS, a password, and a certificate of whoever comes in where one is asked for."""

import base64
import http.client
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.certificates import pem_files
from worker.kafka.embedded_certificates import Authority

_SECONDS = 60


@contextmanager
def tls_door(authority: Authority, behind: str, password: str, *, asks_for_certificate: bool = False) -> Iterator[str]:
    """The address of the door; `password` is that of the user `labeller`."""
    expected = "Basic " + base64.b64encode(f"labeller:{password}".encode()).decode()
    inside = urllib.parse.urlsplit(behind)
    assert inside.hostname is not None

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name is the library's
            self._pass_on(None)

        def do_POST(self) -> None:  # as above
            self._pass_on(self.rfile.read(int(self.headers["Content-Length"])))

        def _pass_on(self, body: bytes | None) -> None:
            if self.headers["Authorization"] != expected:
                self._answer(401, b'{"error_code": 401, "message": "no"}')
                return
            connection = http.client.HTTPConnection(inside.hostname or "", inside.port, timeout=_SECONDS)
            kind = {"Content-Type": self.headers["Content-Type"]} if body is not None else {}
            connection.request(self.command, self.path, body, kind)
            answer = connection.getresponse()
            self._answer(answer.status, answer.read())
            connection.close()

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    certificate, key = pem_files(authority, "door")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if asks_for_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.ca)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who is not let in is no error of the door
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}{inside.path}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
