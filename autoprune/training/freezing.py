"""What of a network is not trained, by patterns of names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from torch import nn

from autoprune.errors import ConfigError, suggest


def begin_training(model: nn.Module, patterns: Sequence[str]) -> nn.Module:
    """The model itself in training mode, but for what the patterns name.

    That takes no gradients, and its norms and dropout run as in evaluation.

    Args:
        model: changed in place.
        patterns: of names of parameters or modules, as in a shell; a module stands for all that is in it.
    """
    model.train()
    if patterns:
        for name, parameter in model.named_parameters():
            if _matches(name, patterns):
                parameter.requires_grad_(False)
        for name, module in model.named_modules():
            weights = list(module.parameters())
            if name and (_matches(name, patterns) or (weights and not any(p.requires_grad for p in weights))):
                module.eval()
    return model


@contextmanager
def flags_kept(model: nn.Module) -> Iterator[None]:
    """Inside, parameters may be frozen; afterwards each takes gradients as before."""
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before.get(name, parameter.requires_grad))


def check_frozen(model: nn.Module, patterns: Sequence[str]) -> None:
    """Check that each pattern names something, and that something is left to train.

    Raises:
        ConfigError: it does not, or nothing is.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(_matches(name, [pattern]) for name in names):
            owners = {name.rpartition(".")[0] for name in names}
            raise ConfigError(
                f"training: freeze names {pattern!r}, which no parameter or module of the network is called."
                f"{suggest(pattern, [*names, *owners])}"
            )
    if patterns and all(_matches(name, patterns) for name in names):
        raise ConfigError(f"training: freeze {list(patterns)} leaves nothing to train; name less")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    pieces = name.split(".")
    above = [".".join(pieces[:end]) for end in range(1, len(pieces) + 1)]
    return any(fnmatchcase(one, pattern) for one in above for pattern in patterns)
