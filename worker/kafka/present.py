"""What the patterns of a configuration match just now, for commands that look once."""

from worker.kafka.clients import connection
from worker.kafka.topics import TopicDirectory
from worker.messages.binding import Binding
from worker.messages.bindings import Bindings
from worker.settings import Kafka


def present_bindings(kafka: Kafka, bindings: Bindings, instance: str) -> tuple[Binding, ...]:
    """The bindings of all inputs that are configured by name, and of what the patterns match. Blocks.

    The broker is asked only where there are patterns.

    Raises:
        RetryableError: it does not answer.
        ConfigError: a file that holds a secret cannot be read.
    """
    if not bindings.patterns:
        return bindings.present(())
    directory = TopicDirectory(connection(kafka, instance))
    directory.refresh(())
    return bindings.present(directory.names)
