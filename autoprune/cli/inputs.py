"""Example inputs as the command line writes them: shapes, of numbers or of token ids, one or several, also by name."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

from autoprune.errors import ConfigError, suggest

if TYPE_CHECKING:  # `autoprune --help` must not import torch
    from torch import Tensor, nn

    from autoprune.space.tracing.program import Example

KINDS = {
    "float": "random numbers",
    "ids": "whole numbers that every embedding of the model has a row for",
    "ones": "whole numbers that are all 1, as an attention mask",
}
HELP = (
    "example input: its shape, batch first; ids:1,64 for token ids; several with ; in between, "
    "by name as input_ids=ids:1,64;attention_mask=ones:1,64"
)
_MANY = 2**31


def example_of(text: str, model: nn.Module) -> Example:
    """The example input that a text describes: `[NAME=][KIND:]SHAPE`, several with semicolons.

    `NAME:SHAPE` does as well where forward has a parameter of this name; by its name it is ids, ones or numbers.

    Args:
        text: of `--input`.
        model: what is called with it.

    Raises:
        ConfigError: a part that cannot be read, or names for some inputs only.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    found = [(name, _tensor(kind, shape, model, generator)) for name, kind, shape in _read(text, model)]
    names = [name for name, _ in found if name]
    if names and (len(names) < len(found) or len(set(names)) < len(names)):
        raise ConfigError(f"--input {text!r}: give either no input a name, or each one a name of its own")
    if names:
        return {name: tensor for name, tensor in found if name}
    return found[0][1] if len(found) == 1 else tuple(tensor for _, tensor in found)


def read_shape(text: str, whole: str | None = None) -> list[int]:
    """Sizes with commas in between.

    Raises:
        ConfigError: something else.
    """
    sizes = [part.strip() for part in text.split(",")]
    shape = [int(size) for size in sizes if re.fullmatch(r"[0-9]{1,10}", size)]
    if len(shape) < len(sizes) or min(shape) < 1 or max(shape) >= _MANY:
        raise ConfigError(
            f"--input {whole or text!r}: give positive sizes with commas, batch first, for example 1,3,32,32, or "
            f"ids:1,64 for token ids"
        )
    return shape


def _read(text: str, model: nn.Module) -> list[tuple[str, str, list[int]]]:
    """(name or nothing, kind, shape) of each input."""
    parameters = list(inspect.signature(model.forward).parameters)
    found = []
    for one in text.split(";"):
        name, _, described = one.strip().rpartition("=")
        prefix, _, sizes = described.rpartition(":")
        kind = prefix or "float"
        if prefix and prefix not in KINDS and not name and prefix in parameters:
            name, kind = prefix, "ids" if re.search("ids|token", prefix) else "ones" if "mask" in prefix else "float"
        if kind not in KINDS:
            kinds = ", ".join(f"{known} ({what})" for known, what in KINDS.items())
            raise ConfigError(
                f"--input {text!r}: {kind!r} is neither a kind of input nor a parameter of the model's forward "
                f"({', '.join(parameters)}); kinds are {kinds}.{suggest(kind, [*KINDS, *parameters])}"
            )
        found.append((name, kind, read_shape(sizes, text)))
    return found


def _tensor(kind: str, shape: list[int], model: nn.Module, generator: Any) -> Tensor:
    import torch
    from torch import nn

    if kind == "ones":
        return torch.ones(*shape, dtype=torch.int64)
    if kind == "ids":
        rows = [module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding)]
        return torch.randint(min([*rows, 2**15]), shape, generator=generator)
    return torch.randn(*shape, generator=generator)
