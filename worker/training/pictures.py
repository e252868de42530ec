"""Confusion matrices and reliability diagrams as SVG, without a library to draw them."""

from html import escape
from typing import Final

from worker.training.evaluate import TaskFigures
from worker.training.metrics import ECE_BINS

_SIDE: Final = 360
_MARGIN: Final = 120
_LABELLED_CLASSES: Final = 40
"""With more classes the names would be smaller than a reader can see."""
_STYLE: Final = 'font-family="sans-serif" font-size="11"'


def confusion_svg(figures: TaskFigures) -> str:
    """Rows are the truth, columns what was said; each row is shaded by its own share."""
    classes = figures.classes
    cell = _SIDE / max(1, classes)
    totals = figures.confusion.sum(axis=1)
    parts = [_text(_MARGIN, 16, f"{figures.task}: {figures.model}, {figures.texts} texts", "start")]
    for row in range(classes):
        for column in range(classes):
            count = int(figures.confusion[row, column])
            if not count:
                continue
            share = count / int(totals[row])
            x, y = _MARGIN + column * cell, 30 + row * cell
            colour = "#1f6feb" if row == column else "#d1242f"
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}" fill="{colour}" '
                f'fill-opacity="{share:.3f}"><title>{escape(figures.labels[row])} as '
                f"{escape(figures.labels[column])}: {count}</title></rect>"
            )
            if cell >= 20:  # noqa: PLR2004  # pixels that a number of two digits takes
                parts.append(_text(x + cell / 2, y + cell / 2 + 4, str(count), "middle"))
    if classes <= _LABELLED_CLASSES:
        parts += [_text(_MARGIN - 4, 30 + (row + 0.5) * cell + 4, figures.labels[row], "end") for row in range(classes)]
    parts.append(_frame(_MARGIN, 30))
    return _svg(_MARGIN + _SIDE + 20, 30 + _SIDE + 20, parts)


def reliability_svg(figures: TaskFigures) -> str:
    """How often the model was right, by how sure it was; on the diagonal both are the same."""
    left, top = 40, 30
    parts = [_text(left, 16, f"{figures.task}: {figures.model}, ECE {figures.averaged_logits.ece:.3f}", "start")]
    width = _SIDE / ECE_BINS
    most = max((each.texts for each in figures.bins), default=1)
    for each in figures.bins:
        place = min(int(each.confidence * ECE_BINS), ECE_BINS - 1)
        height = each.accuracy * _SIDE
        parts.append(
            f'<rect x="{left + place * width:.1f}" y="{top + _SIDE - height:.1f}" width="{width - 1:.1f}" '
            f'height="{height:.1f}" fill="#1f6feb" fill-opacity="{0.25 + 0.75 * each.texts / most:.3f}">'
            f"<title>{each.texts} texts, confidence {each.confidence:.3f}, accuracy {each.accuracy:.3f}</title></rect>"
        )
    parts.append(f'<line x1="{left}" y1="{top + _SIDE}" x2="{left + _SIDE}" y2="{top}" stroke="#57606a"/>')
    parts.append(_frame(left, top))
    parts.append(_text(left + _SIDE / 2, top + _SIDE + 16, "confidence", "middle"))
    parts.append(_text(left - 4, top + 10, "1", "end"))
    return _svg(left + _SIDE + 20, top + _SIDE + 30, parts)


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {_STYLE}>{escape(words)}</text>'


def _frame(left: int, top: int) -> str:
    return f'<rect x="{left}" y="{top}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#57606a"/>'


def _svg(width: int, height: int, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return "\n".join((head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>")) + "\n"
