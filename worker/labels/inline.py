"""Label sets that take effect for one message: those it carries, and those of which it changes something. Pure."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from worker.documents import first_problem
from worker.errors import ErrorCode, MessageError, Stage
from worker.labels.schema import DEFAULT_TEMPLATE, LabelLimits, LabelSchema, canonical_json, is_template
from worker.messages.reference import INLINE
from worker.types import JsonValue, Request

_STRINGS = ("name", "description", "hypothesis")
_KEYS = frozenset({*_STRINGS, "threshold"})


def inline_schema(request: Request, base: LabelSchema | None, limits: LabelLimits) -> LabelSchema:
    """The label set that a message carries, as version 0 of `inline`.

    Templates, `multi_label`, `abstain` and `long_text` are those of `base`, the topic's own schema, unless the message
    sets them. An `abstain.label` that is one of the labels is left out. The digest is that of the effective document.

    Raises:
        MessageError: `labels_invalid`, `labels_too_many`, `label_too_long`, `labels_duplicate` or `template_invalid`.
    """
    labels = _checked_labels(request.labels, limits)
    check_template(request.hypothesis_template, limits)
    document: dict[str, JsonValue] = {"name": INLINE, "version": 0, "labels": [*labels]}
    document["multi_label"] = base is not None and base.multi_label
    document["hypothesis_templates"] = [*base.hypothesis_templates] if base is not None else [DEFAULT_TEMPLATE]
    if base is not None:
        inherited = base.model_dump(
            mode="json", exclude_none=True, exclude_unset=True, include={"abstain", "long_text"}
        )
        abstain = inherited.get("abstain", {})
        if abstain.get("label") in {label["name"] for label in labels}:
            del abstain["label"]
        document |= inherited
    return _effective(document, request)


def overridden_schema(schema: LabelSchema, request: Request, limits: LabelLimits) -> LabelSchema:
    """`schema` with the template and the mode that a message sets; `schema` itself where that changes nothing.

    Name and version stay; the digest is that of the effective document, so that such a prediction can be told from one
    under `schema` as it is. What cannot hold any more is left out: calibration (it belongs to template and mode),
    `abstain` with `multi_label`, `negative` without.

    Raises:
        MessageError: `template_invalid`.
    """
    check_template(request.hypothesis_template, limits)
    same_template = request.hypothesis_template is None or schema.hypothesis_templates == (request.hypothesis_template,)
    if same_template and request.multi_label in {None, schema.multi_label}:
        return schema
    document = schema.document()
    document.pop("calibration", None)
    return _effective(document, request)


def check_template(template: str | None, limits: LabelLimits) -> None:
    """Nothing, where a message's own template can be used.

    Raises:
        MessageError: `template_invalid`.
    """
    if template is None:
        return
    if not is_template(template):
        raise _refused(ErrorCode.TEMPLATE_INVALID, "hypothesis_template: expected exactly one {} and no other brace")
    if _utf8_bytes(template) > limits.label_bytes:
        raise _refused(ErrorCode.TEMPLATE_INVALID, f"hypothesis_template: the limit is {limits.label_bytes} bytes")


class RecentSets:
    """The label sets that took effect last, so that a set that every message carries is parsed once. Thread-safe."""

    def __init__(self, sets: int = 1024, key_bytes: int = 16_384, labels: int = 32_768) -> None:
        """Keep at most `sets` with at most `labels` in all, and none that takes more than `key_bytes` as JSON.

        A label takes 0.9 KB, measured with its hypothesis: 30 MB for all, whatever the sets' sizes.
        """
        self._lock = threading.Lock()
        self._sets: OrderedDict[bytes, LabelSchema] = OrderedDict()
        self._most_sets = sets
        self._most_key_bytes = key_bytes
        self._most_labels = labels
        self._labels = 0

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._sets)

    def get_or_make(
        self, request: Request, base: LabelSchema | None, limits: LabelLimits, make: Callable[[], LabelSchema]
    ) -> LabelSchema:
        """The set that `request` makes of `base`, made by `make` unless it is kept.

        Raises:
            MessageError: as `make` does; refusals are not kept.
        """
        key = _key(request, base, limits)
        if len(key) > self._most_key_bytes:
            return make()
        with self._lock:
            kept = self._sets.get(key)
            if kept is not None:
                self._sets.move_to_end(key)
                return kept
        made = make()
        with self._lock:
            if key not in self._sets:  # another thread may have made it meanwhile
                self._sets[key] = made
                self._labels += len(made.tree.nodes)
            while self._sets and (len(self._sets) > self._most_sets or self._labels > self._most_labels):
                _, oldest = self._sets.popitem(last=False)
                self._labels -= len(oldest.tree.nodes)
        return made


def _key(request: Request, base: LabelSchema | None, limits: LabelLimits) -> bytes:
    parts: JsonValue = [
        request.labels,
        request.hypothesis_template,
        request.multi_label,
        base.digest if base is not None else None,
        limits.labels,
        limits.label_bytes,
    ]
    try:
        return canonical_json(parts)
    except (ValueError, RecursionError):
        raise _refused(ErrorCode.LABELS_INVALID, "labels: expected finite numbers and Unicode strings") from None


def _effective(document: dict[str, JsonValue], request: Request) -> LabelSchema:
    if request.hypothesis_template is not None:
        document["hypothesis_templates"] = [request.hypothesis_template]
    if request.multi_label is not None:
        if request.multi_label and not document.get("multi_label"):
            document.pop("shortlist", None)  # not every set that has one may have it in the other mode
        document["multi_label"] = request.multi_label
    if document.get("multi_label"):
        document.pop("abstain", None)
    else:
        labels = document["labels"]
        document["labels"] = [_without_negative(label) for label in labels] if isinstance(labels, list) else labels
    try:
        return LabelSchema.from_canonical(canonical_json(document))
    except ValidationError as error:
        raise _refused(ErrorCode.LABELS_INVALID, f"{first_problem(error)}") from None


def _without_negative(label: JsonValue) -> JsonValue:
    if not isinstance(label, dict):
        return label
    kept = {key: value for key, value in label.items() if key != "negative"}
    children = kept.get("children")
    if isinstance(children, list):
        kept["children"] = [_without_negative(child) for child in children]
    return kept


def _checked_labels(labels: JsonValue, limits: LabelLimits) -> list[dict[str, JsonValue]]:
    if not isinstance(labels, list) or not labels:
        raise _refused(ErrorCode.LABELS_INVALID, "labels: expected a list of at least one label")
    checked = [_checked_label(label, index) for index, label in enumerate(labels)]
    if len(checked) > limits.labels:
        raise _refused(ErrorCode.LABELS_TOO_MANY, f"labels: {len(checked)} of them, the limit is {limits.labels}")
    for index, label in enumerate(checked):
        for key in _STRINGS:
            if _utf8_bytes(label.get(key)) > limits.label_bytes:
                reason = f"labels.{index}.{key}: the limit is {limits.label_bytes} bytes"
                raise _refused(ErrorCode.LABEL_TOO_LONG, reason)
    names: dict[JsonValue, int] = {}
    for index, label in enumerate(checked):
        first = names.setdefault(str(label["name"]), index)
        if first != index:
            raise _refused(ErrorCode.LABELS_DUPLICATE, f"labels.{index}: its name is that of labels.{first}")
    return checked


def _checked_label(label: JsonValue, index: int) -> dict[str, JsonValue]:
    if isinstance(label, str):
        label = {"name": label}
    if not isinstance(label, dict):
        raise _refused(ErrorCode.LABELS_INVALID, f"labels.{index}: expected a string or an object")
    if "name" not in label:
        raise _refused(ErrorCode.LABELS_INVALID, f"labels.{index}.name: expected a string, there is none")
    if not label.keys() <= _KEYS:
        raise _refused(ErrorCode.LABELS_INVALID, f"labels.{index}: a key that is not known")
    return {key: value for key, value in label.items() if _is_given(label, key, index)}


def _is_given(label: Mapping[str, JsonValue], key: str, index: int) -> bool:
    value = label[key]
    if value is None and key != "name":
        return False
    if key == "threshold":
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise _refused(ErrorCode.LABELS_INVALID, f"labels.{index}.threshold: expected a number from 0 to 1")
    elif not isinstance(value, str) or not value.strip():
        raise _refused(ErrorCode.LABELS_INVALID, f"labels.{index}.{key}: expected a string that is not blank")
    return True


def _utf8_bytes(text: JsonValue) -> int:
    return len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else 0


def _refused(code: ErrorCode, reason: str) -> MessageError:
    return MessageError(code, Stage.RESOLVE, reason)
