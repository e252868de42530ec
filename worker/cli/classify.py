"""`worker classify`: try a label set on texts, without Kafka."""

from pathlib import Path

import typer

from worker.cli.options import EXIT_FAILED


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("classify")(classify)


def classify(
    texts: list[str] = typer.Argument(None, help="Texts; without any and without --file, lines of standard input."),
    labels: str | None = typer.Option(None, help="Labels with commas between them."),
    schema: Path | None = typer.Option(None, help="A label schema, YAML or JSON."),
    file: Path | None = typer.Option(None, help="One input message (JSON) per line; - is standard input."),
    multi_label: bool = typer.Option(False, "--multi-label", help="Judge each label by itself."),
    template: str | None = typer.Option(None, help="A hypothesis with one {} for the label."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object per line."),
    model: str = typer.Option("bundled", help="`bundled`, a folder, or a Hugging Face id@revision."),
    engine: str = typer.Option("auto", help="auto | tensorrt | pytorch | openvino | t5_rank | gliclass | fake"),
    precision: str = typer.Option("auto", help="auto | float32 | bfloat16 | float16"),
) -> None:
    """Classify texts under a label set: the same code path as the worker's, without Kafka.

    Exits 1 at the end if a message could not be classified; its code is printed in its place.
    """
    from worker.classifier import open_classifier
    from worker.cli.texts import as_object, for_people, label_schema_from, records_from
    from worker.engines.load import EngineChoice
    from worker.observability.logging import configure_logging
    from worker.settings import Limits
    from worker.types import Refusal

    configure_logging("warning")
    label_schema = label_schema_from(labels, schema, template, multi_label=multi_label)
    records = records_from(texts, file)
    failed = 0
    with open_classifier(EngineChoice(model, engine, precision), label_schema, Limits()) as (classifier, stamp):
        for answer in classifier.answers(records):
            failed += isinstance(answer.outcome, Refusal)
            print(as_object(answer, stamp) if as_json else for_people(answer))
    if failed:
        raise typer.Exit(EXIT_FAILED)
