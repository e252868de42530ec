"""librdkafka's settings for each of our clients. What the promises rest on is set here and cannot be configured."""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from worker.errors import ConfigError
from worker.settings import Kafka

ClientSettings = dict[str, str | int | float]
"""What librdkafka is configured with."""

_QUOTED_VALUE = re.compile(r'Invalid value ".*" for', re.DOTALL)
_FIXES = {
    "https.ca.location": "kafka.oauth_ca_location: expected certificates, in PEM",
    "ssl.ca.location": "kafka.ssl_ca_location: expected certificates, in PEM",
    "ssl.certificate.location": "kafka.ssl_certificate_location: expected a certificate, in PEM",
    "ssl.key.location": "kafka.ssl_key_location: expected the certificate's key, in PEM; where it is locked, with the "
    "right password in WORKER_KAFKA__SSL_KEY_PASSWORD or in the file that `kafka.ssl_key_password_file` names",
}
"""What to mend where librdkafka complains of a setting that we made of one of ours."""
_RIGHTS = {
    "TOPIC_AUTHORIZATION_FAILED": "grant Read on this topic, and Write where it is written",
    "GROUP_AUTHORIZATION_FAILED": "grant Describe on the group of `kafka.group_id`",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": "grant Write on the transactional id `<schemas.topic>.apply`",
}
MAX_POLL_INTERVAL_MS = 300_000
STABLE_FETCH_KILOBYTES = 16_384
"""Prefetch per consumer: a few batches for any engine; the client's default of 64 MiB is memory for nothing."""


def instance_name(kafka: Kafka) -> str:
    """Who this process is in its group: the configured name, or a random one drawn now."""
    return kafka.instance_id or secrets.token_hex(6)


def connection(kafka: Kafka, instance: str) -> ClientSettings:
    """Settings for reaching the cluster, secrets included: never to be printed.

    Raises:
        ConfigError: a file that holds a secret cannot be read.
    """
    return {
        "socket.keepalive.enable": True,
        **kafka.connection(),
        "client.id": f"{kafka.group_id}.{instance}",
        "log_level": 2,  # what matters of it comes back as errors, in our own words
    }


def no_answer(settings: ClientSettings, error: KafkaException, complaint: KafkaError | None = None) -> str:
    """What to tell where no broker answers: which ones were asked, without what somebody wrote before an `@`.

    `complaint`: what the client said last of its own accord; only that tells a broker that refuses us from none.
    """
    # A password may have a comma in it: from the first server on, all before the last `@` may be secret.
    servers = ", ".join(each.strip() for each in str(settings["bootstrap.servers"]).rpartition("@")[2].split(","))
    code = None if complaint is None else complaint.code()
    if complaint is not None and code == KafkaError._AUTHENTICATION:  # noqa: SLF001  so named
        # Its own words may come from a broker or an issuer, and are not passed on.
        if settings.get("sasl.oauthbearer.method") == "oidc" and "token" in complaint.str():
            seen = "kafka.oauth_token_url, kafka.oauth_ca_location, kafka.oauth_client_id and the client's secret"
            return f"no token is had of the issuer ({complaint.name()}): check {seen}"
        seen = "kafka.sasl_mechanism, kafka.sasl_username and its password"
        if settings.get("sasl.mechanisms") == "OAUTHBEARER":
            seen = "that the brokers trust the tokens' issuer"
        return f"{servers} refuses who the worker says it is ({complaint.name()}): check {seen}"
    if complaint is not None and code == KafkaError._SSL:  # noqa: SLF001
        seen = "kafka.ssl_ca_location, kafka.ssl_certificate_location, and the name in kafka.bootstrap_servers"
        return f"no TLS connection to {servers} ({complaint.name()}): check {seen}"
    return f"no broker answers at {servers} ({error.args[0].name()}): check kafka.bootstrap_servers and the network"


def right_for(name: str) -> str:
    """What to grant where the broker answers with the error of that name, as the end of a sentence; else nothing."""
    return f": {_RIGHTS[name]}" if name in _RIGHTS else ""


@contextmanager
def checked_settings() -> Iterator[None]:
    """Turns librdkafka's refusal of a setting into ours.

    Raises:
        ConfigError: a setting is unknown, or has no value that can be used.
    """
    try:
        yield
    except KafkaException as error:
        raise ConfigError(_refused(error.args[0].str())) from None


def _refused(said: str) -> str:
    """Our words for librdkafka's refusal of a setting, with its own, in which a value may stand."""
    reason = " ".join(_QUOTED_VALUE.sub("Invalid value for", said).split())
    for name, fix in _FIXES.items():
        if name in reason:
            return f"{fix} ({reason})"
    return f"kafka: the client refuses its settings ({reason}): check those of `kafka` and of `kafka.librdkafka`"


def consumer_settings(kafka: Kafka, instance: str) -> ClientSettings:
    """Settings of the one consumer: offsets travel only with the outputs, only committed records are read."""
    settings: ClientSettings = {
        "queued.max.messages.kbytes": STABLE_FETCH_KILOBYTES,
        "fetch.wait.max.ms": 50,
        "fetch.queue.backoff.ms": 50,
        "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
        # How soon a topic is read that was not there when it was subscribed to; the client's own is five minutes.
        "topic.metadata.refresh.interval.ms": 10_000,
        **connection(kafka, instance),
        "group.id": kafka.group_id,
        "group.protocol": kafka.group_protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
    }
    if kafka.group_protocol == "classic":
        settings["partition.assignment.strategy"] = "cooperative-sticky"
    if kafka.static_membership:
        settings["group.instance.id"] = instance
    return settings


def producer_settings(kafka: Kafka, instance: str, *, transactional: bool) -> ClientSettings:
    """Settings of the one producer."""
    settings: ClientSettings = {
        "linger.ms": 5,
        "compression.type": "lz4",
        "retry.backoff.ms": 20,
        **connection(kafka, instance),
        "enable.idempotence": True,
    }
    if transactional:
        timeout_ms = kafka.transaction_timeout_ms
        if kafka.instance_id is None:
            # Nobody comes back under a random id: what it leaves open holds readers up for this long.
            timeout_ms = min(timeout_ms, 15_000)
        settings["transactional.id"] = f"{kafka.group_id}.{instance}"
        settings["transaction.timeout.ms"] = timeout_ms
    return settings


def reader_settings(kafka: Kafka, instance: str) -> ClientSettings:
    """Settings of a consumer that joins no group: it names one only because librdkafka insists."""
    return {
        "fetch.wait.max.ms": 50,
        "fetch.queue.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        **connection(kafka, instance),
        "group.id": kafka.group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "allow.auto.create.topics": False,
    }


def answer_settings(kafka: Kafka, instance: str) -> ClientSettings:
    """Settings of the producer that answers on the status topic: each answer once, none worth a long wait."""
    return {
        **connection(kafka, instance),
        "enable.idempotence": True,
        "message.timeout.ms": 10_000,
        "allow.auto.create.topics": False,
    }


def apply_settings(kafka: Kafka, instance: str, topic: str) -> ClientSettings:
    """Settings of the producer that changes label schemas: one at a time per label topic, the last to start wins."""
    return {
        **connection(kafka, instance),
        "enable.idempotence": True,
        "transactional.id": f"{topic}.apply",
        # What a killed command leaves open keeps every worker from the end of the topic for this long.
        "transaction.timeout.ms": 10_000,
        "allow.auto.create.topics": False,
    }
