"""What a way to connect to the cluster needs, told by the keys of the configuration before a client is made of them."""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from worker.setting_parts import variable_of

if TYPE_CHECKING:
    from worker.settings import Kafka

_WITH_PASSWORD = {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}
_TOKEN_BY_HAND = ("sasl.oauthbearer.", "enable.sasl.oauthbearer.")
_CERTIFICATE_BY_HAND = ("ssl.certificate.", "ssl.keystore.", "ssl.engine.")
_KEY_BY_HAND = ("ssl.key.", "ssl.keystore.", "ssl.engine.")
"""How settings of librdkafka begin that bring the same in another way."""


def missing_credentials(kafka: "Kafka", by_hand: Collection[str]) -> Iterator[str]:
    """What the settings lack to say who the worker is.

    `by_hand`: names of settings that librdkafka is given as well.
    """
    if kafka.sasl_mechanism in _WITH_PASSWORD:
        if not kafka.sasl_username:
            yield f"kafka.sasl_username: expected the user, with `sasl_mechanism: {kafka.sasl_mechanism}`"
        if kafka.sasl_password is None and kafka.sasl_password_file is None:
            yield _no_secret("kafka.sasl_password", "the user's password")
    if kafka.sasl_mechanism == "OAUTHBEARER" and not _is_there(_TOKEN_BY_HAND, by_hand):
        if kafka.oauth_token_url is None:
            yield "kafka.oauth_token_url: expected where tokens are issued, with `sasl_mechanism: OAUTHBEARER`"
        if not kafka.oauth_client_id:
            yield "kafka.oauth_client_id: expected the client, with `sasl_mechanism: OAUTHBEARER`"
        if kafka.oauth_client_secret is None and kafka.oauth_client_secret_file is None:
            yield _no_secret("kafka.oauth_client_secret", "the client's secret")
    certificate, key = kafka.ssl_certificate_location, kafka.ssl_key_location
    if key is not None and certificate is None and not _is_there(_CERTIFICATE_BY_HAND, by_hand):
        yield "kafka.ssl_certificate_location: expected the certificate of the key, beside `kafka.ssl_key_location`"
    if certificate is not None and key is None and not _is_there(_KEY_BY_HAND, by_hand):
        yield "kafka.ssl_key_location: expected the certificate's key, beside `kafka.ssl_certificate_location`"


def _no_secret(key: str, what: str) -> str:
    return f"{key}: expected {what} in the environment ({variable_of(key)}) or in a file that `{key}_file` names"


def _is_there(beginnings: tuple[str, ...], names: Collection[str]) -> bool:
    return any(name.startswith(beginnings) for name in names)
