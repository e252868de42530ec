"""The fake `tensorrt` as version 10.15: strongly typed only when told to, and without the attention of version 11.

What it lacks is what the bindings of 10.15.1.29 and 10.16.1.11 lack, looked up in them.
"""

from types import ModuleType
from typing import Any

from tests.support import fake_tensorrt
from tests.support.fake_tensorrt import state

_ABSENT = ("AttentionIOForm", "CausalMaskKind")


class OldNetworkDefinition(fake_tensorrt.INetworkDefinition):
    """A network whose attention takes neither lengths nor a form."""

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401  # whatever it has
        """All but what there is only since 11."""
        if name == "add_attention_v2":
            raise AttributeError(name)
        return super().__getattribute__(name)


class OldBuilder(fake_tensorrt.Builder):
    """Builds plans of strongly typed networks, if told so."""

    def create_network(self, flags: int) -> OldNetworkDefinition:
        state.told("create_network", flags)
        assert flags == 1 << int(fake_tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED), "else weakly typed"
        return OldNetworkDefinition()


tensorrt = ModuleType("tensorrt")
vars(tensorrt).update({name: getattr(fake_tensorrt, name) for name in fake_tensorrt.__all__ if name not in _ABSENT})
vars(tensorrt).update(Builder=OldBuilder, INetworkDefinition=OldNetworkDefinition, __version__="10.15.1.29")
