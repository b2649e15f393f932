"""Final trainings: every arm by every protocol with the same seeds; the only place that touches test data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from safetensors.torch import save_file
from torch import nn

from autoprune.cost.flops import flops
from autoprune.evaluators.base import Workbench
from autoprune.search.ledger import Notebook
from autoprune.training import PROTOCOLS
from autoprune.training.protocols import Protocol, reinitialise
from autoprune.verdict.record import Arm, FinalTraining


@final
@dataclass(frozen=True, slots=True, eq=False)
class FinalPlan:
    """How the final networks are trained.

    Attributes:
        protocols: names, the deciding one first.
        seeds: trainings per arm and protocol.
        fine_tune_epochs: for protocols that start from inherited weights.
        base_lr: learning rate of the base network.
        seed: first seed; the same seeds serve every arm, so that differences are paired.
    """

    protocols: tuple[str, ...]
    seeds: int
    fine_tune_epochs: int
    base_lr: float
    seed: int


def train_finals(
    bench: Workbench,
    arms: Sequence[Arm],
    plan: FinalPlan,
    *,
    notebook: Notebook,
    weights: Path,
    on_final: Callable[[FinalTraining], None],
) -> list[FinalTraining]:
    """Train what the notebook does not hold yet; arms of equal widths share their trainings.

    The winner's first network by the first protocol is written to `weights`.

    Raises:
        EvaluationError: a final training diverged.
    """
    finals = []
    for protocol_name in plan.protocols:
        protocol: Protocol = PROTOCOLS.get(protocol_name)
        for seed in range(plan.seed, plan.seed + plan.seeds):
            for arm in arms:
                key = f"{protocol_name}/{seed}/{'-'.join(map(str, arm.widths))}"
                known = notebook.read().get(key)
                if known is None:
                    started = time.perf_counter()
                    network, epochs = _train(bench, arm, protocol, plan, seed)
                    score = bench.task.score(network, split="test")
                    if arm.name == "winner" and (protocol_name, seed) == (plan.protocols[0], plan.seed):
                        save_weights(network, weights)
                    known = {"epochs": epochs, "seconds": time.perf_counter() - started, "arm": arm.name}
                    notebook.write(key, score, known | {"protocol": protocol_name, "seed": seed})
                    known["score"] = score
                final = FinalTraining(
                    arm.name, protocol_name, seed, known["epochs"], float(known["score"]), float(known["seconds"])
                )
                finals.append(final)
                on_final(final)
    return finals


def save_weights(network: nn.Module, path: Path) -> None:
    """Write a state dict as safetensors, in one step; tied tensors are written under each of their names."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(state, str(temporary))
    temporary.replace(path)


def _train(bench: Workbench, arm: Arm, protocol: Protocol, plan: FinalPlan, seed: int) -> tuple[nn.Module, int]:
    network = bench.candidate(arm.widths)
    if not protocol.inherits:
        reinitialise(network, seed=seed)
    full, cut = flops(bench.space)(np.array([bench.space.full, arm.widths]))
    ratio = float(full / max(1.0, cut))
    epochs = protocol.epochs(bench.base_epochs, plan.fine_tune_epochs, ratio)
    bench.task.train(network, epochs=epochs, seed=seed, lr=protocol.lr(plan.base_lr))
    return network, epochs
