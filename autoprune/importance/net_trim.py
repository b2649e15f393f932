"""Layer-wise convex pruning: Aghasi et al. 2017, Net-Trim, arXiv 1611.05162, section 2, on pre-activations."""

from __future__ import annotations

import torch
from numpy.random import Generator
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.importance.evidence import GroupEvidence, InputMoments, criterion


@criterion("moments", members="moments", single=True)
def net_trim(
    evidence: GroupEvidence, rng: Generator, *, penalties: int = 24, iterations: int = 60, lowest: float = 1e-3
) -> Tensor:
    """(width,) Σ of λ_w over all weights w that read the channel; λ_w of a single weight.

    Net-Trim finds the sparsest weights, in ‖U‖₁, whose outputs are within ε of the layer's: for each ε a convex
    program, here min ½ E‖(U - W) u‖² + λ ‖U‖₁ with the multiplier λ in place of ε, so that one sequence of programs
    serves all densities. λ_w is the largest λ at which w ≠ 0. The paper asks for equality only where the ReLU after the
    layer is not 0; here it is asked everywhere, as for layers without one, so that second moments say it all and batch
    norms may lie between. The weights of the program itself are not used: `inherit` fits those that stay.

    Unlabelled data, two passes for all groups; at most 32 sampled positions of each example. Then
    `penalties` x `iterations` products of all weights with the moments of their inputs (seconds for wide layers).

    Args:
        evidence: of the group.
        rng: not used.
        penalties: how many λ, evenly in their logarithm; between two of them λ_w is read off the slope at the upper.
        iterations: of FISTA (Beck & Teboulle 2009) with restarts for each λ, from the solution before.
        lowest: the last λ, as a share of the first, at which all weights are 0; slopes rank what is 0 there still.

    Raises:
        ConfigError: a setting out of its range.
    """
    if penalties < 2 or iterations < 1 or not 0 < lowest < 1:
        raise ConfigError(
            f"penalties must be at least 2, iterations at least 1 and lowest above 0 and below 1, got {penalties!r}, "
            f"{iterations!r} and {lowest!r}"
        )
    assert evidence.moments is not None  # it is asked for
    found = [(reader, _entered(reader, penalties, iterations, lowest)) for reader in evidence.moments]
    if evidence.spread is not None:
        return evidence.spread(found[0][1]).sum(dim=1)
    total = torch.zeros(evidence.width + 1, dtype=torch.float64, device=found[0][1].device)
    for reader, entered in found:
        total.index_add_(0, reader.channel.flatten() % (evidence.width + 1), entered.sum(dim=1).flatten())
    return total[:-1]


def _entered(reader: InputMoments, penalties: int, iterations: int, lowest: float) -> Tensor:
    """(groups, outputs, D) the largest λ at which each weight is not 0."""
    weight, second = reader.weight.double(), reader.second.double()
    target = weight @ second
    highest = float(target.abs().max())
    steepest = torch.linalg.matrix_norm(second, 2)[:, None, None]
    entered, solution, slope = torch.zeros_like(weight), torch.zeros_like(weight), target
    if highest == 0:
        return entered
    ratio = lowest ** (1 / (penalties - 1))
    for number in range(1, penalties):
        above, penalty = highest * ratio ** (number - 1), highest * ratio**number
        guess = slope.abs().clamp(penalty, above)
        solution = _sparsest(solution, target, second, penalty, steepest, iterations)
        entered = torch.where((entered == 0) & (solution != 0), guess, entered)
        slope = target - solution @ second
    return torch.where(entered == 0, slope.abs().clamp(max=penalty), entered)


def _sparsest(start: Tensor, target: Tensor, second: Tensor, penalty: float, steepest: Tensor, steps: int) -> Tensor:
    """What minimises ½ tr U Σ Uᵀ - tr U targetᵀ + λ ‖U‖₁."""
    step = torch.where(steepest > 0, 1 / steepest, 0.0)
    now, ahead, momentum = start, start, 1.0
    for _ in range(steps):
        moved = ahead + step * (target - ahead @ second)
        after = moved.sign() * (moved.abs() - step * penalty).clamp(min=0)
        turned = ((ahead - after) * (after - now)).sum() > 0  # O'Donoghue & Candès 2015: momentum that goes uphill
        following = 1.0 if turned else (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = after + (0.0 if turned else (momentum - 1) / following) * (after - now)
        now, momentum = after, following
    return now
