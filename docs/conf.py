"""The documentation site, for Sphinx: README.md and docs/ as they are, read the same on a forge.

Build: `.ci/run docs`, into dist/site. A page in docs/ that nobody listed comes last in the navigation, so none is
forgotten; a link that leads nowhere is a warning, and warnings are failures.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent

project = "nli-stream-worker"
author = "the authors of nli-stream-worker"
extensions = ["myst_parser"]
root_doc = "README"
# What else lies in the checkout is no page. Patterns are relative to the root, which is what sphinx-build is given.
include_patterns = ["*.md", "docs/*.md", "schemas/**.md", "deploy/**.md", "worker/bundled/model/README.md"]
exclude_patterns = ["dist", "build", "tests", "benchmarks", "recipes", "**/.*", ".*"]
html_theme = "furo"
html_title = project
html_show_copyright = False
myst_heading_anchors = 4
highlight_language = "none"

NAVIGATION = {
    "Using it": [
        "first-day",
        "compose",
        "label-schemas",
        "changing-labels",
        "shortlists",
        "formats",
        "configuration",
        "training",
    ],
    "Running it": [
        "operations",
        "capacity",
        "tuning",
        "upgrade",
        "security",
        "backpressure",
        "dead-letters",
        "gpu",
        "faq",
    ],
    "How it works, and how well": ["delivery-guarantees", "architecture", "faults", "faults-engine", "benchmarks"],
}
REFERENCE = "Reference"


def navigation() -> dict[str, list[str]]:
    """Caption -> documents; every page that is there has a place."""
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    listed = {name for names in NAVIGATION.values() for name in names}
    sections = {caption: [f"docs/{name}" for name in names if name in pages] for caption, names in NAVIGATION.items()}
    beside = sorted(str(path.relative_to(ROOT).with_suffix("")) for path in _beside())
    sections[REFERENCE] = [*(f"docs/{name}" for name in sorted(pages - listed)), *beside]
    return sections


def _beside() -> list[Path]:
    """The pages that lie elsewhere."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("schemas/**/*.md"), *ROOT.glob("deploy/**/*.md")]
    found.append(ROOT / "worker" / "bundled" / "model" / "README.md")
    return [path for path in found if path != ROOT / "README.md"]


def setup(app: "Sphinx") -> None:
    """Add what the pages do not say themselves: the navigation, and where a link to a folder leads."""
    app.connect("source-read", _with_navigation)
    app.connect("doctree-read", _folders_as_their_pages)
    app.connect("build-finished", _with_index)


def _with_navigation(_: "Sphinx", document: str, source: list[str]) -> None:
    if document != root_doc:
        return
    for caption, documents in navigation().items():
        entries = "\n".join(f"/{each}" for each in documents)
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n"


def _with_index(app: "Sphinx", failure: Exception | None) -> None:
    """What a web server looks for first."""
    if failure is None:
        to = f'<!doctype html><title>{project}</title><meta http-equiv="refresh" content="0; url={root_doc}.html">'
        (Path(app.outdir) / "index.html").write_text(to, encoding="utf-8")


def _folders_as_their_pages(app: "Sphinx", tree: nodes.document) -> None:
    """On a forge a link to a folder shows its README: here it leads to that page."""
    folder = Path(app.env.doc2path(app.env.docname)).parent
    for link in tree.findall():
        target = getattr(link, "attributes", {}).get("reftarget", "")
        place: Any = (folder / target).resolve() if target else None
        if place is not None and place.is_dir() and (place / "README.md").is_file():
            page = str((place / "README").relative_to(ROOT))
            link.attributes |= {"refdomain": "doc", "reftarget": page, "reftargetid": None}
