"""What `worker check` finds: what would run, what would not, and why."""

from collections.abc import Iterator, Mapping

from worker.assembler import Assembler, engine_choice
from worker.clock import Clock
from worker.cluster_checks import Finding, of_cluster
from worker.config import Config
from worker.engines.choice import EngineChoice, tensorrt_absence
from worker.engines.load import LoadedModel, load_engine
from worker.engines.source import BUNDLED
from worker.errors import ConfigError, SchemaError, WorkerError
from worker.kafka.label_writer import LabelDesk
from worker.kafka.registry_parts import REGISTRY
from worker.label_sets import affordable, behind, directory_source, fitting, pair_tokenizer
from worker.labels.notices import route_notices, schema_notices
from worker.labels.registry import LabelRegistry
from worker.labels.schema import LabelSchema
from worker.messages.binding import Binding
from worker.observability.tracing import is_reachable

_UNSEEN = (
    "the topic does not exist, or may not be seen: `worker check --create-topics` creates it, or grant Describe on it"
)
_SEEN_SECONDS = 15.0
"""How long new topics may take until every broker knows them."""
_LOOK_SECONDS = 0.2
_COMPACTED = {"cleanup.policy": "compact"}


def look(config: Config, clock: Clock, create_with_partitions: int | None = None) -> Iterator[Finding]:
    """Everything there is to say about a configuration that could be read, as it is found. Blocks.

    With a number of partitions, the topics that are missing are created first.
    """
    try:
        make = Assembler(config, clock)
    except ConfigError as error:
        yield from (Finding("failed", "configuration", problem) for problem in error.problems)
        yield from _without_clients(config)
        return
    if create_with_partitions is not None:
        yield from created(make, create_with_partitions)
    yield from findings(make)


def _without_clients(config: Config) -> Iterator[Finding]:
    """What there is to say where neither broker nor registry can be asked."""
    model, found = _load(engine_choice(config))
    yield from found
    labels = _registry(config, model)
    yield from _of_source(config, labels)
    if config.schemas.topic is None:
        yield from _of_schemas(config, labels, model)
    if model is not None:
        model.engine.close()


def created(make: Assembler, partitions: int) -> Iterator[Finding]:
    """What came of creating every topic that is missing: inputs with `partitions`, the others as they need. Blocks."""
    try:
        make.directory.refresh(())
        for wanted, config in (_missing_inputs(make, partitions), {}), (_missing_label_topics(make), _COMPACTED):
            yield from _create(make, wanted, config)
        yield from _create(make, _missing_outputs(make), {})
    except WorkerError as error:
        yield Finding("failed", "topics", str(error))


def _missing_inputs(make: Assembler, partitions: int) -> dict[str, int]:
    return {topic: partitions for topic in make.bindings.named if topic not in make.directory.names}


def _missing_label_topics(make: Assembler) -> dict[str, int]:
    schemas = make.config.schemas
    return {t: 1 for t in (schemas.topic, schemas.answers_topic) if t is not None and t not in make.directory.names}


def _missing_outputs(make: Assembler) -> dict[str, int]:
    """What is written and not there, with as many partitions as the largest of its inputs that are there."""
    bindings = make.bindings.present(make.directory.names)
    make.directory.refresh(binding.input for binding in bindings)
    missing: dict[str, int] = {}
    for binding in bindings:
        facts = make.directory.facts(binding.input)
        for topic in binding.topics_written:
            if facts is not None and topic not in make.directory.names:
                missing[topic] = max(facts.partitions, missing.get(topic, 0))
    return missing


def _create(make: Assembler, wanted: Mapping[str, int], config: Mapping[str, str]) -> Iterator[Finding]:
    """Create topics, and wait until they are seen.

    Raises:
        RetryableError: one could not be created.
    """
    make.directory.create(wanted, config)
    deadline = make.clock.monotonic() + _SEEN_SECONDS
    while not make.directory.names.issuperset(wanted) and make.clock.monotonic() < deadline:
        make.directory.refresh(())
        make.lifecycle.wait_for_stop(_LOOK_SECONDS)
    for topic, partitions in wanted.items():
        yield Finding("ok", topic, f"created, {partitions} partitions")


def findings(make: Assembler) -> Iterator[Finding]:
    """What model, label schemas, broker and registry say, as it is found. Blocks."""
    model, found = _load(make.engine_choice())
    yield from found
    labels = _registry(make.config, model)
    yield from _of_tracing(make)
    yield from _of_source(make.config, labels)
    yield from _of_label_topic(make, labels)
    yield from _of_schemas(make.config, labels, model)
    yield from _of_topics(make)
    if model is not None:
        model.engine.close()
    if make.registry is not None:
        make.registry.close()


def _load(choice: EngineChoice) -> tuple[LoadedModel | None, list[Finding]]:
    try:
        model = load_engine(choice)
    except WorkerError as error:
        return None, [Finding("failed", "model", str(error))]
    return model, [_of_model(model), *_of_gpu(choice)]


def _registry(config: Config, model: LoadedModel | None) -> LabelRegistry:
    """One that judges as a worker's does, as far as the model is known."""
    limits = config.limits
    if model is None:
        return LabelRegistry(limits, None, affordable(limits.pairs))
    return LabelRegistry(limits, model.engine.info.stamp.digest, fitting(pair_tokenizer(model), limits.pairs))


def _of_model(model: LoadedModel) -> Finding:
    stamp = model.engine.info.stamp
    return Finding("ok", "model", f"{stamp.name} ({stamp.digest[:19]}…) on {model.why}")


def _of_gpu(choice: EngineChoice) -> Iterator[Finding]:
    """Why the fastest engine is not considered, where it might have been."""
    absence = tensorrt_absence() if choice.engine == "auto" and choice.model != BUNDLED else None
    if absence is not None:
        yield Finding("ok", "tensorrt", f"not used: {absence}")


def _of_tracing(make: Assembler) -> Iterator[Finding]:
    endpoint = make.config.tracing.endpoint
    if endpoint is None:
        return
    try:
        make.tracing().close()
    except ConfigError as error:
        yield Finding("failed", "tracing", str(error))
        return
    if is_reachable(endpoint):
        yield Finding("ok", "tracing", f"spans go to {endpoint}")
    else:
        yield Finding("warning", "tracing", f"nobody answers at {endpoint}; the worker runs, and its spans are lost")


def _of_source(config: Config, labels: LabelRegistry) -> Iterator[Finding]:
    try:
        source = directory_source(config)
        if source is not None:
            source.load(labels)
    except (ConfigError, SchemaError) as error:
        yield Finding("failed", "label schemas", str(error))
    for refusal in labels.refusals():
        yield Finding("warning", "label schemas", f"{refusal}; a worker refuses this file and keeps the others")


def _of_label_topic(make: Assembler, labels: LabelRegistry) -> Iterator[Finding]:
    schemas = make.config.schemas
    if schemas.topic is None or schemas.answers_topic is None:
        return
    try:
        make.directory.refresh((schemas.topic, schemas.answers_topic))
        missing = [t for t in (schemas.topic, schemas.answers_topic) if make.directory.facts(t) is None]
        for topic in missing:
            if schemas.create:
                yield Finding("ok", topic, "would be created, compacted, with one partition")
            else:
                fix = "`worker check --create-topics` creates it, or set schemas.create: true"
                yield Finding("failed", topic, f"the topic does not exist: {fix}")
        if schemas.topic in missing:
            return
        with LabelDesk(make.config.kafka, schemas, make.clock) as desk:
            state = desk.read().state
    except WorkerError as error:
        yield Finding("failed", "label topic", str(error))
        return
    change = labels.publish({name: state.of(name) for name in state.names()})
    yield Finding("ok", schemas.topic, f"label schemas: {', '.join(state.names()) or 'none'}")
    for refusal in change.refused:
        yield Finding("warning", "label topic", f"{refusal}; what held before holds")


def _of_schemas(config: Config, labels: LabelRegistry, model: LoadedModel | None) -> Iterator[Finding]:
    for name in labels.names():
        schema = labels.current(name)
        if schema is not None:
            yield _of_schema(schema, model)
    for binding in config.topics:
        if binding.label_schema is None:
            yield Finding("ok", binding.input, "no label schema: every message brings its labels")
        elif labels.find(binding.label_schema) is None:
            missing = f"its label schema {binding.label_schema} is not there"
            reasons = [str(refusal) for refusal in behind(binding.label_schema, labels)[:1]]
            yield Finding("failed", binding.input, ": ".join([missing, *reasons]))
    for notice in route_notices(config.topics, labels):
        yield Finding("warning", notice.subject, notice.message)


def _of_schema(schema: LabelSchema, model: LoadedModel | None) -> Finding:
    subject, tree = f"label schema {schema.reference}", schema.tree
    cost = f"{len(tree.nodes)} labels, {'at most ' if tree.is_staged else ''}{tree.most_pairs} pairs per message"
    for notice in schema_notices(schema, None if model is None else model.engine.info.stamp.digest):
        return Finding("warning", subject, f"{cost}; {notice.message}")
    return Finding("ok", subject, cost)


def _of_topics(make: Assembler) -> Iterator[Finding]:
    try:
        make.directory.refresh(())
        bindings = make.bindings.present(make.directory.names)
        make.directory.refresh({name for b in bindings for name in (b.input, *b.topics_written)})
    except WorkerError as error:
        yield Finding("failed", "broker", str(error))
        return
    yield Finding("ok", "broker", f"{make.config.kafka.bootstrap_servers} answers, cluster {make.directory.cluster_id}")
    for pattern in make.bindings.patterns:
        yield from _of_pattern(make, pattern)
    for binding in bindings:
        yield from _of_binding(make, binding)
        yield from _of_registered(make, binding)
    yield from of_cluster(make.config, bindings)


def _of_registered(make: Assembler, binding: Binding) -> Iterator[Finding]:
    if make.registry is None:
        return
    settings = make.config.registry
    for subject, obstacle in make.registry.look_up(binding):
        if obstacle is None:
            yield Finding("ok", subject, "it answers" if subject == REGISTRY else "the schema registry has it")
        elif obstacle.is_missing and settings is not None and settings.register_schemas:
            yield Finding("ok", subject, "its schema would be registered")
        else:
            yield Finding("failed", subject, obstacle.reason)
    for subject, doubt in make.registry.doubts(binding):
        yield Finding("warning", subject, doubt)


def _of_pattern(make: Assembler, pattern: str) -> Iterator[Finding]:
    matched = make.bindings.matches(pattern, make.directory.names)
    if not matched:
        yield Finding("warning", pattern, "no topic matches yet; those that come are read from their beginning")
        return
    yield Finding("ok", pattern, f"{len(matched)} topics match: {', '.join(matched)}")
    for topic in matched:
        if rivals := make.bindings.rivals(topic):
            yield Finding("warning", topic, f"{' and '.join(rivals)} match it; the first has it")


def _of_binding(make: Assembler, binding: Binding) -> Iterator[Finding]:
    source = make.directory.facts(binding.input)
    if source is None:
        yield Finding("failed", binding.input, f"{_UNSEEN}; its binding waits until then")
        return
    yield Finding("ok", binding.input, f"{source.partitions} partitions")
    for topic in binding.topics_written:
        facts = make.directory.facts(topic)
        if facts is None and make.config.kafka.create_topics:
            yield Finding("ok", topic, f"would be created with {source.partitions} partitions")
        elif facts is None:
            yield Finding("failed", topic, f"{_UNSEEN}, or set kafka.create_topics: true")
        elif facts.partitions < source.partitions:
            many = f"{facts.partitions} partitions, {binding.input} has {source.partitions}"
            yield Finding("warning", topic, f"{many}: order is kept per key only")
        elif facts.max_message_bytes < source.max_message_bytes:
            sizes = (
                f"max.message.bytes is {facts.max_message_bytes}, that of {binding.input} {source.max_message_bytes}"
            )
            yield Finding("warning", topic, f"{sizes}: large events go out without their event")
        else:
            yield Finding("ok", topic, f"{facts.partitions} partitions")
