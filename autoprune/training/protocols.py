"""Protocols: how final networks are trained. Liu et al. ICLR 2019, Rethinking the Value of Network Pruning, sec. 3."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

from torch import nn

from autoprune.config.parts import PartOptions
from autoprune.config.settings import bind
from autoprune.errors import ConfigError, blame
from autoprune.randomness import seeded
from autoprune.space.cutting.masks import keep_masks
from autoprune.space.cutting.rounded import keep_bits
from autoprune.training import PROTOCOLS
from autoprune.training.fresh import fresh_weights


@final
@dataclass(frozen=True, slots=True)
class Protocol:
    """How a final network is trained.

    Attributes:
        inherits: whether it starts from the weights of the full network, or from fresh ones (see `reinitialise`).
        epochs: (epochs of the base network, epochs set for fine-tuning, FLOPs of base / pruned) -> epochs.
        lr: learning rate of the base network -> learning rate.
        told: how a sentence says it, for example "fine-tuned".
        steps: in how many the network is cut while it trains; 0: it is cut before.
        cutting: share of the training over which these are spread.
        trains: False: the network is what inheritance makes of it, on calibration inputs of a draw of its own for each
            seed; it needs no labels.
        rounds: of trainings whose magnitudes say which single weights go, before the one that counts; 0: none.
        rewind: share of a training to whose weights each of them goes back.
        distil: whether it learns from the base network, too; None: where the task does so if nothing is said.
    """

    inherits: bool
    epochs: Callable[[int, int, float], int]
    lr: Callable[[float], float]
    told: str = ""
    steps: int = 0
    cutting: float = 0.0
    trains: bool = True
    rounds: int = 0
    rewind: float = 0.0
    distil: bool | None = False


def fine_tune(*, lr_share: float = 0.1, distil: bool | None = None) -> Protocol:
    """Train the inherited weights on, for as many epochs as the job says.

    Args:
        lr_share: learning rate, as a share of the base network's; the hundredth of Li et al. favours training from
            scratch (Wang et al. 2023, Why is the State of Neural Network Pruning so Confusing).
        distil: every arm learns from the base network, too (Hinton et al. 2015); None: classifiers do, unless the job
            names an objective.

    Raises:
        ConfigError: a share that is no number above 0, or a `distil` that is neither true, false nor None.
    """
    _check("fine_tune", "lr_share", lr_share, least=0)
    _check_distil("fine_tune", distil)
    return Protocol(
        inherits=True,
        epochs=lambda base, fine_tune, ratio: fine_tune,
        lr=lambda lr: lr_share * lr,
        told="fine-tuned",
        distil=distil,
    )


def gradual(*, steps: int = 4, cutting: float = 0.5, lr_share: float = 0.1, distil: bool | None = None) -> Protocol:
    """Cut in steps, train a little after each, and train on: as many epochs in all as `fine_tune`.

    Widths follow the cubic schedule of Zhu & Gupta. At each step weights make up for what is lost as the job's
    inheritance says, fitted to the network as it is then, and the optimizer goes on with what is left of its state: it
    is one training, under one schedule of the learning rate. Which channels go is decided once, by the job's criterion.

    Args:
        steps: cuts; no more than there are epochs for.
        cutting: share of the training over which they are spread; the rest trains the final widths.
        lr_share: as of `fine_tune`.
        distil: as of `fine_tune`.

    Raises:
        ConfigError: a setting out of its range.
    """
    _check("gradual", "lr_share", lr_share, least=0)
    _check_distil("gradual", distil)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ConfigError(f"protocol 'gradual': steps must be a whole number of at least 1, got {steps!r}")
    if not isinstance(cutting, int | float) or isinstance(cutting, bool) or not 0 < cutting < 1:
        raise ConfigError(f"protocol 'gradual': cutting must be a number above 0 and below 1, got {cutting!r}")
    return Protocol(
        inherits=True,
        epochs=lambda base, fine_tune, ratio: fine_tune,
        lr=lambda lr: lr_share * lr,
        told="cut in steps and fine-tuned",
        distil=distil,
        steps=steps,
        cutting=float(cutting),
    )


def no_training() -> Protocol:
    """Train nothing: weights are refitted as the job's `verdict: inherit` says, and scored.

    Seeds are draws of calibration inputs, none of which the search has seen; where the inheritance reads none, all
    seeds give one score and there is no interval.
    """
    return Protocol(
        inherits=True,
        epochs=lambda base, fine_tune, ratio: 0,
        lr=lambda lr: lr,
        told="without training",
        trains=False,
    )


def lottery(*, rounds: int = 3, rewind: float = 0.0) -> Protocol:
    """Iterative magnitude pruning with rewinding: fresh weights, the ticket found in rounds, then trained as the base.

    In each round the network is trained, each layer keeps its largest weights, and these go back to what they were at
    the beginning (or a little into the training): round i of n leaves every layer with its final density to the power
    i / n, so that the same share of what is left goes each time. Of widths, whole channels are ranked. Rounds cost a
    training each, which the epochs that are told do not count.

    Args:
        rounds: n, at least 1.
        rewind: to which share of the training weights go back, in whole epochs, at least one; 0 is the first paper's.

    Raises:
        ConfigError: a setting out of its range.
    """
    if not isinstance(rounds, int) or isinstance(rounds, bool) or not 1 <= rounds <= 100:
        raise ConfigError(f"protocol 'lottery': rounds must be a whole number from 1 to 100, got {rounds!r}")
    if not isinstance(rewind, int | float) or isinstance(rewind, bool) or not 0 <= rewind < 1:
        raise ConfigError(f"protocol 'lottery': rewind must be at least 0 and below 1, got {rewind!r}")
    return Protocol(
        inherits=False,
        epochs=lambda base, fine_tune, ratio: base,
        lr=lambda lr: lr,
        told=f"a ticket of {rounds} rounds trained from its rewound weights",
        rounds=rounds,
        rewind=float(rewind),
    )


def scratch_e() -> Protocol:
    """Scratch-E: fresh weights, trained exactly as the base network."""
    return Protocol(
        inherits=False, epochs=lambda base, fine_tune, ratio: base, lr=lambda lr: lr, told="trained from scratch"
    )


def scratch_b(*, longest: float = 2.0) -> Protocol:
    """Scratch-B: fresh weights, trained with as much computation as the base network.

    Args:
        longest: at most so many times the epochs of the base network; twice in section 3 of the paper.

    Raises:
        ConfigError: less than 1.
    """
    _check("scratch_b", "longest", longest, least=1)
    return Protocol(
        inherits=False,
        epochs=lambda base, fine_tune, ratio: int(base * min(max(ratio, 1.0), longest)),
        lr=lambda lr: lr,
        told="trained from scratch at equal compute",
    )


def make_protocol(options: PartOptions) -> Protocol:
    """Build a protocol by name; of one with settings, `told` names them.

    Raises:
        RegistryError: no protocol has this name.
        ConfigError: a setting that it does not have, or of a wrong value; or something else than a protocol.
    """
    part = bind(PROTOCOLS, options.name, options.settings)
    what = f"protocol {options.label!r}"
    with blame(ConfigError, f"{what} cannot be made", then="Correct its settings or its code."):
        made = part if isinstance(part, Protocol) else part()
    if not isinstance(made, Protocol):
        raise ConfigError(
            f"{what} gives a {type(made).__name__}; it must be a Protocol, or a function that returns one"
        )
    told = made.told or f"trained by {options.name}"
    return replace(made, told=f"{told} with {options.told}" if options.settings else told)


def _check(protocol: str, setting: str, value: object, *, least: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < math.inf or not value:
        raise ConfigError(
            f"protocol {protocol!r}: {setting} must be a number {f'of at least {least}' if least else 'above 0'}, "
            f"got {value!r}"
        )


def _check_distil(protocol: str, value: object) -> None:
    if value is not None and not isinstance(value, bool):
        raise ConfigError(f"protocol {protocol!r}: distil must be true, false or null, got {value!r}")


def rewound_to(rewind: float, epochs: int) -> int:
    """After which epoch of a training the weights are kept that `lottery` goes back to; 0: before the first.

    Never its end, and at least one where `rewind` is above 0 and there is more than one.
    """
    return min(max(1, round(rewind * epochs)), epochs - 1) if rewind else 0


def reinitialise(model: nn.Module, *, seed: int) -> None:
    """Give `model` fresh weights in place, the same for the same seed; the global random state stays as it was.

    Modules with `reset_parameters` are asked to, inner ones first, so that a network that defines it has the last word
    on its own initialisation, also in graph form. Embeddings, and parameters held by modules without it, stay if they
    are constant, and are else drawn from a normal distribution with their own mean and standard deviation; networks
    with embeddings may say more by `_init_weights(module)` (see `fresh_weights`). Weights that a mask leaves out are
    0, and those that have bits are rounded.
    """
    with seeded(seed):
        fresh_weights(model)
    keep_masks(model)
    keep_bits(model)
