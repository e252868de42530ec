"""The registry is asked with a bearer token that was issued for the client's secret, which is told to nobody else."""

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr

from worker.errors import ConfigError, RetryableError
from worker.kafka.schema_registry import RegistryClient
from worker.registry_settings import Registry

SECRET = "hunter-2-oauth"  # noqa: S105  made up


@dataclass
class Site:
    """Issues tokens under /token, and is a registry under everything else."""

    url: str = ""
    refuses: bool = False
    issued_to: list[str] = field(default_factory=list)
    asked_with: list[tuple[str | None, ...]] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name is the library's
            self.rfile.read(int(self.headers["Content-Length"]))
            made.issued_to.append(base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode())
            token = {"access_token": "token-1", "token_type": "Bearer", "expires_in": 3600}
            self._answer(401 if made.refuses else 200, {"error": "invalid_client"} if made.refuses else token)

        def do_GET(self) -> None:  # as above
            names = ("Authorization", "target-sr-cluster", "Confluent-Identity-Pool-Id")
            made.asked_with.append(tuple(self.headers[name] for name in names))
            self._answer(200, {"schema": '"string"'})

        def _answer(self, status: int, value: dict[str, object]) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def _settings(site: Site, secret_file: Path | None = None, pool: str | None = None) -> Registry:
    return Registry(
        url=site.url,
        oauth_token_url=f"{site.url}/token",
        oauth_client_id="labeller",
        oauth_client_secret=SecretStr(SECRET) if secret_file is None else None,
        oauth_client_secret_file=secret_file,
        oauth_scope="registry",
        oauth_logical_cluster="lsrc-1",
        oauth_identity_pool=pool,
    )


@pytest.mark.parametrize(("from_file", "pool"), [(False, None), (True, "pool-1")])
def test_one_token_serves_all_requests(site: Site, tmp_path: Path, from_file: bool, pool: str | None) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    client = RegistryClient(_settings(site, tmp_path / "secret" if from_file else None, pool))

    assert ['"string"', '"string"'] == [client.fetch(number).text for number in (1, 2)]
    client.close()

    assert [f"labeller:{SECRET}"] == site.issued_to
    assert [("Bearer token-1", "lsrc-1", pool)] * 2 == site.asked_with


def test_a_client_that_gets_no_token_may_try_again_and_tells_no_secret(site: Site) -> None:
    site.refuses = True
    settings = _settings(site)
    client = RegistryClient(settings)

    with pytest.raises(RetryableError, match="does not answer") as refused:
        client.fetch(1)
    client.close()

    assert not site.asked_with
    assert SECRET not in f"{refused.value}{refused.value.__context__}{settings!r}"


def test_a_secret_that_cannot_be_read_names_its_key(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"registry\.oauth_client_secret_file: expected a file"):
        RegistryClient(_settings(site, tmp_path / "none"))
