"""The parts of the configuration: how the schema registry is reached."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from worker.documents import MisfitError
from worker.setting_parts import Part, all_or_problems, read_secret, readable_path

_FILES = {
    "ssl.ca.location": "ssl_ca_location",
    "ssl.certificate.location": "ssl_certificate_location",
    "ssl.key.location": "ssl_key_location",
}


class Registry(Part):
    """The schema registry: a service with the interface of Confluent's."""

    url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")] = Field(
        description="Its address, several with commas; without user and password."
    )
    username: str | None = Field(default=None, description="User of its basic authentication.")
    password: SecretStr | None = Field(default=None, description="The user's password; from the environment only.")
    password_file: Path | None = Field(default=None, description="File that holds the password.")
    oauth_token_url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")] | None = Field(
        default=None, description="OAuth bearer: where tokens are issued for client credentials (OIDC)."
    )
    oauth_client_id: str | None = Field(default=None, description="OAuth bearer: the client.")
    oauth_client_secret: SecretStr | None = Field(
        default=None, description="OAuth bearer: the client's secret; from the environment only."
    )
    oauth_client_secret_file: Path | None = Field(default=None, description="File that holds the client's secret.")
    oauth_scope: str = Field(default="", description="OAuth bearer: scope that is asked for.")
    oauth_logical_cluster: str = Field(default="", description="OAuth bearer: the registry's cluster, as lsrc-abc12.")
    oauth_identity_pool: str | None = Field(default=None, description="OAuth bearer: the identity pool.")
    ssl_ca_location: Path | None = Field(default=None, description="File of the certificates to trust.")
    ssl_certificate_location: Path | None = Field(default=None, description="File of the client's certificate.")
    ssl_key_location: Path | None = Field(default=None, description="File of the client's key.")
    register_schemas: bool = Field(
        default=True,
        description="Whether schemas of predictions are registered; false: they are looked up, and have to be there.",
    )

    def connection(self) -> dict[str, str]:
        """Settings of confluent-kafka's registry client, secrets included: never to be printed. Reads files.

        Raises:
            ConfigError: a file is not there or cannot be read.
        """
        given: dict[str, str | None] = {"url": self.url}
        if self.oauth_token_url is not None:
            given |= {
                "bearer.auth.credentials.source": "OAUTHBEARER",
                "bearer.auth.issuer.endpoint.url": self.oauth_token_url,
                "bearer.auth.client.id": self.oauth_client_id,
                "bearer.auth.scope": self.oauth_scope,
                "bearer.auth.logical.cluster": self.oauth_logical_cluster,
                "bearer.auth.identity.pool.id": self.oauth_identity_pool,
            }
        settings = {name: value for name, value in given.items() if value is not None}
        return settings | all_or_problems(self._readers())

    def _readers(self) -> dict[str, Callable[[], str | None]]:
        """Settings of the client that are in files, or may be."""
        readers: dict[str, Callable[[], str | None]] = {
            name: partial(readable_path, getattr(self, key), f"registry.{key}", may_be_folder=key == "ssl_ca_location")
            for name, key in _FILES.items()
        }
        if self.username is not None:
            readers["basic.auth.user.info"] = self._user_info
        if self.oauth_token_url is not None:
            secret, file = self.oauth_client_secret, self.oauth_client_secret_file
            readers["bearer.auth.client.secret"] = partial(read_secret, secret, file, "registry.oauth_client_secret")
        return readers

    def _user_info(self) -> str:
        password = read_secret(self.password, self.password_file, "registry.password", may_be_empty=True)
        return f"{self.username}:{password or ''}"

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise MisfitError(("password_file",), "expected either the file or the environment variable, not both")
        if self.username is None and (self.password is not None or self.password_file is not None):
            raise MisfitError(("username",), "expected it beside the password")
        if self.ssl_key_location is not None and self.ssl_certificate_location is None:
            raise MisfitError(("ssl_certificate_location",), "expected it beside `registry.ssl_key_location`")
        self._check_oauth()
        return self

    def _check_oauth(self) -> None:
        secrets = [self.oauth_client_secret, self.oauth_client_secret_file]
        if None not in secrets:
            raise MisfitError(
                ("oauth_client_secret_file",), "expected either the file or the environment variable, not both"
            )
        given = [self.oauth_client_id, *secrets, self.oauth_identity_pool, self.oauth_scope, self.oauth_logical_cluster]
        if self.oauth_token_url is None:
            if any(given):
                raise MisfitError(("oauth_token_url",), "expected it beside the other keys of OAuth")
            return
        if self.username is not None:
            raise MisfitError(("username",), "expected either basic authentication or OAuth, not both")
        if self.oauth_client_id is None or not any(secrets):
            raise MisfitError(
                ("oauth_client_id",), "expected it and the client's secret beside `registry.oauth_token_url`"
            )
