"""What spans and their attributes are called, in one place.

The names are those of OpenTelemetry's semantic conventions in the version of `SCHEMA_URL`, and no other: the
conventions for messaging are still in development there, and names have moved before. What the conventions have no
word for begins with `worker.`. docs/tracing.md has the same table for people.
"""

from typing import Final

VERSION: Final = "1.44.0"
SCHEMA_URL: Final = f"https://opentelemetry.io/schemas/{VERSION}"

# The resource: whose spans they are.
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE_ID: Final = "service.instance.id"

# A record: https://opentelemetry.io/docs/specs/semconv/messaging/kafka/
SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION_NAME: Final = "messaging.destination.name"
PARTITION_ID: Final = "messaging.destination.partition.id"
OFFSET: Final = "messaging.kafka.offset"
CONSUMER_GROUP: Final = "messaging.consumer.group.name"
CLIENT_ID: Final = "messaging.client.id"
BODY_SIZE: Final = "messaging.message.body.size"
TOMBSTONE: Final = "messaging.kafka.message.tombstone"
ERROR_TYPE: Final = "error.type"

# A batch.
BATCH_MESSAGES: Final = "messaging.batch.message_count"
BATCH_PAIRS: Final = "worker.batch.pairs"
BATCH_TOKENS: Final = "worker.batch.tokens"

# How a record ended.
OUTCOME: Final = "worker.outcome"
PREDICTED: Final = "predicted"
DEAD_LETTER: Final = "dead_letter"
DROPPED: Final = "dropped"

KAFKA: Final = "kafka"
PROCESS: Final = "process"
SCORE: Final = "score"
