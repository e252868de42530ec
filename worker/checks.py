"""What `worker check` finds: what would run, what would not, and why."""

from collections.abc import Iterator

from worker.app import Assembler
from worker.cluster_checks import Finding, of_cluster
from worker.engines.load import LoadedModel, load_engine
from worker.errors import ConfigError, MessageError, SchemaError, WorkerError
from worker.labels.registry import LabelRegistry
from worker.labels.schema import LabelSchema
from worker.messages.binding import Binding
from worker.pipeline.planning import plan_pairs
from worker.pipeline.tokenization import PairTokenizer
from worker.types import Request

_UNSEEN = "the topic does not exist, or may not be seen: create it, or grant Describe on it"


def findings(make: Assembler) -> Iterator[Finding]:
    """Everything there is to say about a configuration that could be read, as it is found. Blocks."""
    model = None
    try:
        model = load_engine(make.engine_choice())
        yield _of_model(model)
    except WorkerError as error:
        yield Finding("failed", "model", str(error))
    labels = LabelRegistry(make.config.limits, None if model is None else model.engine.info.stamp.digest)
    yield from _of_source(make, labels)
    yield from _of_schemas(make, labels, model)
    yield from _of_topics(make)
    if model is not None:
        model.engine.close()


def _of_model(model: LoadedModel) -> Finding:
    stamp = model.engine.info.stamp
    return Finding("ok", "model", f"{stamp.name} ({stamp.digest[:19]}…) on {model.why}")


def _of_source(make: Assembler, labels: LabelRegistry) -> Iterator[Finding]:
    try:
        source = make.source()
        if source is not None:
            source.load_or_raise(labels)
    except (ConfigError, SchemaError) as error:
        yield Finding("failed", "label schemas", str(error))


def _of_schemas(make: Assembler, labels: LabelRegistry, model: LoadedModel | None) -> Iterator[Finding]:
    tokenizer = None if model is None else PairTokenizer(model.tokenizer_file, model.engine.info.max_pair_tokens)
    for name in labels.names():
        schema = labels.current(name)
        if schema is not None:
            yield _of_schema(make, schema, model, tokenizer)
    for binding in make.config.topics:
        if binding.label_schema is None:
            yield Finding("ok", binding.input, "no label schema: every message brings its labels")
        elif labels.find(binding.label_schema) is None:
            yield Finding("failed", binding.input, f"its label schema {binding.label_schema} is not there")


def _of_schema(
    make: Assembler, schema: LabelSchema, model: LoadedModel | None, tokenizer: PairTokenizer | None
) -> Finding:
    subject = f"label schema {schema.reference}"
    try:
        plan = plan_pairs(Request("check", ""), schema, make.config.limits.pairs)
        if tokenizer is not None:
            tokenizer.check(plan.hypotheses)
    except MessageError as error:
        return Finding("failed", subject, error.reason)
    cost = f"{len(schema.labels)} labels, {len(plan.hypotheses)} pairs per message"
    calibration = schema.calibration
    if calibration is not None and model is not None and calibration.model != model.engine.info.stamp.digest:
        return Finding("warning", subject, f"{cost}; its calibration was made for another model and is ignored")
    return Finding("ok", subject, cost)


def _of_topics(make: Assembler) -> Iterator[Finding]:
    bindings = make.config.topics
    try:
        make.directory.refresh({name for b in bindings for name in (b.input, b.output_topic, b.dead_letter_topic)})
    except WorkerError as error:
        yield Finding("failed", "broker", str(error))
        return
    yield Finding("ok", "broker", f"{make.config.kafka.bootstrap_servers} answers, cluster {make.directory.cluster_id}")
    for binding in bindings:
        yield from _of_binding(make, binding)
    yield from of_cluster(make.config)


def _of_binding(make: Assembler, binding: Binding) -> Iterator[Finding]:
    source = make.directory.facts(binding.input)
    if source is None:
        yield Finding("failed", binding.input, f"{_UNSEEN}; its binding waits until then")
        return
    yield Finding("ok", binding.input, f"{source.partitions} partitions")
    for topic in (binding.output_topic, binding.dead_letter_topic):
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
