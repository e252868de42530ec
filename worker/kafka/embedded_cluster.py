"""Several nodes of the embedded Kafka as one cluster, each of which can be killed and started again by itself."""

from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.embedded_jars import Progress
from worker.kafka.embedded_java import kafka_java
from worker.kafka.embedded_storage import EmbeddedSettings, Place, choose_ports, random_uuid, stored_cluster_id

NODES = 3


class EmbeddedCluster:
    """Nodes that are brokers and controllers at once. A context manager: started on entry, closed on exit.

    With three nodes or more, topics, offsets and transactions are on three of them and outlive the loss of one.
    """

    def __init__(
        self,
        settings: EmbeddedSettings | None = None,
        *,
        nodes: int = NODES,
        advertised_ports: Mapping[int, Mapping[str, int]] | None = None,
        progress: Progress = lambda _message: None,
    ) -> None:
        """Of several, the first has `settings.port`, the others the next ones, and each a folder in `data_dir`.

        `advertised_ports` are those of the settings, node by node.
        """
        self._settings = settings or EmbeddedSettings()
        self._progress = progress
        self._count = nodes
        self._advertised = advertised_ports or {}
        self._nodes: dict[int, EmbeddedKafka] = {}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def nodes(self) -> Mapping[int, EmbeddedKafka]:
        """Node id -> node; to be killed and started by whoever likes."""
        return self._nodes

    @property
    def bootstrap_servers(self) -> str:
        """Where clients find it: every node, with commas."""
        return ",".join(node.bootstrap_servers for node in self._nodes.values())

    @property
    def cluster_id(self) -> str:
        """What its nodes call their cluster."""
        return next(iter(self._nodes.values())).cluster_id

    def start(self) -> None:
        """Start every node. Blocks until each answers.

        Raises:
            ConfigError: a port that the settings name is taken, or the folder cannot be used.
            BrokerUnavailableError: there is no Java or no jars, or a node ended or did not answer in time.
        """
        self._nodes = self._nodes or self._made()
        if self._count == 1:
            self._nodes[1].start()
            return
        for node in self._nodes.values():
            if not node.is_running:
                node.launch()
        for node in self._nodes.values():
            node.await_ready()

    def create_topics(self, topics: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
        """Create topics, name -> number of partitions, and wait until every partition has a leader. Blocks.

        Raises:
            BrokerUnavailableError: the cluster refused or did not answer.
        """
        next(node for node in self._nodes.values() if node.is_running).create_topics(topics, config)

    def close(self) -> None:
        """Stop every node and remove the folders that they were given. May be repeated."""
        for number, node in enumerate(self._nodes.values()):
            if number:  # the first leaves in order; then too few are left to agree on leaving
                node.kill()
            node.close()

    def _made(self) -> dict[int, EmbeddedKafka]:
        settings, ids = self._settings, range(1, self._count + 1)
        if self._count == 1:
            return {1: EmbeddedKafka(settings, progress=self._progress)}
        wanted = [replace(settings, port=None if settings.port is None else settings.port + n) for n in range(len(ids))]
        ports = {node_id: choose_ports(each) for node_id, each in zip(ids, wanted, strict=True)}
        controllers = {node_id: found["CONTROLLER"] for node_id, found in ports.items()}
        folders = {n: None if settings.data_dir is None else settings.data_dir / f"node-{n}" for n in ids}
        first = folders[1]
        cluster_id = (first and stored_cluster_id(first / "records")) or random_uuid()
        java = kafka_java(self._progress)
        return {
            node_id: EmbeddedKafka(
                replace(
                    settings,
                    data_dir=folders[node_id],
                    advertised_ports=self._advertised.get(node_id, settings.advertised_ports),
                    place=Place(node_id, cluster_id, ports[node_id], controllers),
                ),
                progress=self._progress,
                java=java,
            )
            for node_id in ids
        }
