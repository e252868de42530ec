"""`worker init`: a first configuration and a first label schema."""

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("init")(init)


def init(
    folder: Path = typer.Argument(Path(), file_okay=False, help="Where to write; the present folder by default."),
    bootstrap_servers: str | None = typer.Option(None, help="Where Kafka is: host:port, several with commas."),
    kafka: Path | None = typer.Option(
        None,
        dir_okay=False,
        help="YAML file with a `kafka` section to take over; `worker broker --secure` writes one.",
    ),
    topic: str | None = typer.Option(None, help="Topic to read."),
    labels: str | None = typer.Option(None, help="Labels with commas between them."),
    text: str = typer.Option("text", help="Fields of the text, with commas; `-`: the whole value is the text."),
    force: bool = typer.Option(False, "--force", help="Overwrite what is there."),
) -> None:
    """Write a commented worker.yaml and a label schema; asks for what no option says."""
    from worker.starter import Answers, split_labels, starter

    section = None if kafka is None else _section(kafka)
    if section and bootstrap_servers:
        raise typer.BadParameter("--kafka says where Kafka is: leave --bootstrap-servers out")
    servers = "" if section else bootstrap_servers
    answers = Answers(
        servers if servers is not None else typer.prompt("Where is Kafka (host:port)?", default="localhost:9092"),
        topic or typer.prompt("Which topic are the events in?", default="events"),
        split_labels(labels or typer.prompt("Which labels, with commas?", default="billing, bug, praise")),
        text,
        section,
    )
    written = [(folder / path, content) for path, content in starter(answers).files().items()]
    _refuse_to_overwrite([path for path, _ in written if not force])
    for path, content in written:
        _write(path, content)
        print(f"written: {path}")
    print(f"next: worker check -c {written[0][0]}; no Kafka at hand? `worker broker` starts one")


def _section(file: Path) -> str:
    from worker.documents import DocumentError, parse_yaml
    from worker.errors import ConfigError

    try:
        text = file.read_text(encoding="utf-8")
        document = parse_yaml(text)
    except (OSError, UnicodeDecodeError, DocumentError):
        raise ConfigError(f"--kafka: {file} cannot be read: expected a YAML file in UTF-8") from None
    if not isinstance(document, dict) or set(document) != {"kafka"}:
        raise ConfigError(f"--kafka: {file}: expected a `kafka` section and nothing else")
    return text


def _refuse_to_overwrite(paths: list[Path]) -> None:
    from worker.errors import ConfigError

    for path in paths:
        if path.exists() or path.is_symlink():
            raise ConfigError(f"{path} is there already: choose another folder, or --force to overwrite it")


def _write(path: Path, text: str) -> None:
    from worker.errors import ConfigError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
