"""What a plan is made of, read from what the library's inspector says of it. Pure."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

_FUSED: Final = re.compile(
    r"(?<![A-Za-z])f?mha(?![A-Za-z])|(?<![A-Z])F?MHA(?![A-Z])|(?i:multi_?head_?attention|flash_?att)|(?<![A-Za-z])sdpa",
)
"""What kernels that compute a whole attention are called: `_gemm_mha_v2`, `_gemv_mha_v1`, `fmha_v2_flash`, `kMHA`."""
_PROFILE: Final = re.compile(r"\[profile (\d+)\]")
_NUMBER: Final = re.compile(r"\blayers?[._/](\d+)(?!\d)")
"""The number of an encoder's layer in names of a network's own: of those we write, and of most graphs."""

Layer = Mapping[str, Any]


def count_fused(layers: str) -> int | None:
    """In how many layers of an encoder attention is one kernel; None where the inspector's JSON does not say.

    The inspector lists every layer once for each profile: it is the profile with the fewest that counts.
    """
    try:
        listed = [_as_layer(each) for each in json.loads(layers)["Layers"]]
    except (ValueError, KeyError, TypeError):
        return None
    if not listed:
        return None
    profiles = {_profile(layer) for layer in listed}
    if "0" in profiles:
        # Then what is of no profile is shared by all.
        profiles.discard("")
    return min(_count([layer for layer in listed if _profile(layer) == profile]) for profile in profiles)


def _as_layer(listed: object) -> Layer:
    """A layer as the inspector says it: in full, or by its name alone."""
    return listed if isinstance(listed, dict) else {"Name": str(listed)}


def _profile(layer: Layer) -> str:
    """Which profile a layer is of; `""` where its name does not say: of the first, or of all."""
    found = _PROFILE.search(str(layer.get("Name")))
    return found[1] if found else ""


def _count(layers: list[Layer]) -> int:
    """An attention that takes two kernels is still one; a kernel that names no layer is taken for one of its own."""
    return len({_encoder_layer(layer) or str(layer.get("Name")) for layer in layers if _is_fused(layer)})


def _is_fused(layer: Layer) -> bool:
    """Looks only at names that the library gives: those of a network's own say what is meant, not what was made of it.

    The library's begin with `_`; an unfused product may well be called `/layer.0/mha/MatMul`.
    """
    name = str(layer.get("Name"))
    kernels = [layer.get("TacticName"), layer.get("LayerType"), name if name.startswith("_") else ""]
    return any(_FUSED.search(str(kernel)) for kernel in kernels if kernel)


def _encoder_layer(layer: Layer) -> str | None:
    """The one encoder layer that a kernel was made from, where that is said."""
    numbers = set(_NUMBER.findall(f"{layer.get('Name')} {layer.get('Metadata')}"))
    return numbers.pop() if len(numbers) == 1 else None
