"""What may be set of single engines."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from worker.documents import MisfitError
from worker.setting_parts import Part, Positive


class TensorRt(Part):
    """What plans are built for, and looked for by; the same as the options of `worker engine build`."""

    layout: Literal["padded", "lengths", "packed"] = Field(
        default="padded", description="How pairs lie beside each other; docs/gpu.md says which model can be built how."
    )
    max_tokens: Positive = Field(default=16_384, description="Tokens of one run.")
    buckets: tuple[Positive, ...] = Field(
        default=(), description="Lengths in tokens that pairs are padded to; none: the usual ones."
    )
    level: Annotated[int, Field(ge=0, le=5)] = Field(default=3, description="How long to look for faster kernels.")


class PyTorch(Part):
    """How the `pytorch` engine lays pairs out; docs/gpu.md says what each is for."""

    layout: Literal["auto", "transformers", "padded", "packed"] = Field(
        default="auto", description="`auto`: `packed` on a GPU where the model's family is known, else `transformers`."
    )
    compiled: bool = Field(
        default=False, description="With `layout: padded`: compile the encoder, which takes minutes at the start."
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.compiled and self.layout != "padded":
            raise MisfitError(("compiled",), "expected only with `pytorch.layout: padded`")
        return self
