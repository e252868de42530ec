"""What a way to connect to the cluster needs, told by the keys of the configuration before a client is made of them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from worker.setting_parts import variable_of

_WITH_PASSWORD = {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}
_TOKEN_BY_HAND = ("sasl.oauthbearer.", "enable.sasl.oauthbearer.")
_CERTIFICATE_BY_HAND = ("ssl.certificate.", "ssl.keystore.", "ssl.engine.")
_KEY_BY_HAND = ("ssl.key.", "ssl.keystore.", "ssl.engine.")
"""How settings of librdkafka begin that bring the same in another way."""


@dataclass(frozen=True, slots=True)
class Login:
    """Which of the keys of `kafka` are set that say who the worker is."""

    mechanism: str | None
    keys: frozenset[str]
    by_hand: Collection[str]
    """Names of settings that librdkafka is given as well."""

    def missing(self) -> Iterator[str]:
        """What it lacks: the key, and what was expected."""
        if self.mechanism in _WITH_PASSWORD:
            if "sasl_username" not in self.keys:
                yield f"kafka.sasl_username: expected the user, with `sasl_mechanism: {self.mechanism}`"
            yield from self._no_secret("sasl_password", "the user's password")
        if self.mechanism == "OAUTHBEARER" and not self._is_given(_TOKEN_BY_HAND):
            for key, what in ("oauth_token_url", "where tokens are issued"), ("oauth_client_id", "the client"):
                if key not in self.keys:
                    yield f"kafka.{key}: expected {what}, with `sasl_mechanism: OAUTHBEARER`"
            yield from self._no_secret("oauth_client_secret", "the client's secret")
        has_certificate, has_key = "ssl_certificate_location" in self.keys, "ssl_key_location" in self.keys
        if has_key and not has_certificate and not self._is_given(_CERTIFICATE_BY_HAND):
            yield "kafka.ssl_certificate_location: expected the certificate of the key, beside `kafka.ssl_key_location`"
        if has_certificate and not has_key and not self._is_given(_KEY_BY_HAND):
            yield "kafka.ssl_key_location: expected the certificate's key, beside `kafka.ssl_certificate_location`"

    def _no_secret(self, name: str, what: str) -> Iterator[str]:
        if not self.keys & {name, f"{name}_file"}:
            key, variable = f"kafka.{name}", variable_of(f"kafka.{name}")
            yield f"{key}: expected {what} in the environment ({variable}) or in a file that `{key}_file` names"

    def _is_given(self, beginnings: tuple[str, ...]) -> bool:
        return any(name.startswith(beginnings) for name in self.by_hand)
