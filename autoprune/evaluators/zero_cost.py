"""Zero-cost proxies as a score: Abdelfattah et al. 2021, Zero-Cost Proxies for Lightweight NAS, arXiv 2101.08134."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from autoprune.config.parts import ChosenPart, NamedPart
from autoprune.config.settings import bind
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError
from autoprune.evaluators.base import Evaluator, check_counts
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.proxies import PROXIES
from autoprune.proxies.base import ProxyNetwork, looks_at
from autoprune.space.groups import Widths
from autoprune.space.tracing.program import plain_attention
from autoprune.texts import ScoreScale
from autoprune.training.objectives.base import LossOfOutputs
from autoprune.training.protocols import reinitialise
from autoprune.training.watch import Watch

_WEIGHTS = ("fresh", "inherited")


@final
class ZeroCost(Evaluator):
    """Score widths by a proxy: from their shapes alone, or from one batch through fresh weights; nothing is trained.

    Its scores are the proxy's own numbers, and say nothing about accuracy; how well their order agrees with that of
    trained networks differs from space to space.

    Args:
        factory: what candidates are made from.
        proxy: one of `PROXIES`, a name or `{name, settings}`.
        examples: of training data that the proxy looks at, at most; the same for all candidates.
        weights: "fresh", as the proxies mean it, or "inherited" with the job's inheritance; of no use to proxies of
            shapes.
        draws: over how many fresh networks the score is a mean.

    Raises:
        ConfigError: a number out of range, or a proxy that needs labels where the task has no loss.
        RegistryError: unknown proxy.
    """

    scale = ScoreScale("zero-cost proxy")

    def __init__(
        self,
        factory: CandidateFactory,
        *,
        proxy: ChosenPart = "log_width",
        examples: int = 64,
        weights: Literal["fresh", "inherited"] = "fresh",
        draws: int = 1,
    ) -> None:
        check_counts("zero_cost", least=1, examples=examples, draws=draws)
        if weights not in _WEIGHTS:
            raise ConfigError(f"evaluator 'zero_cost': weights must be one of {', '.join(_WEIGHTS)}, got {weights!r}")
        chosen = NamedPart.of(proxy, "evaluator.settings.proxy")
        self._factory, self._fresh, self._draws = factory, weights == "fresh", draws
        self._looks = looks_at(PROXIES.get(chosen.name))
        self._proxy: Callable[..., Any] = bind(PROXIES, chosen.name, chosen.settings)
        objective = factory.task.objective
        if self._looks == "labels" and objective is None:
            raise ConfigError(
                f"evaluator 'zero_cost': the proxy {chosen.name!r} needs a loss, and the task has none; choose one of "
                f"{', '.join(name for name in PROXIES.names() if looks_at(PROXIES.get(name)) != 'labels')}"
            )
        self._loss = None if objective is None else _loss_of(objective)
        if self._looks == "shapes":
            self._of_widths = self._proxy(factory.space)
        else:
            self._batch = _batch(factory, examples)

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        """See `Evaluator.evaluate`; the seed is that of fresh weights and of noise."""
        if self._looks == "shapes":
            return float(self._of_widths(np.array([widths]))[0])
        return float(np.mean([self._of_network(widths, seed + draw) for draw in range(self._draws)]))

    def _of_network(self, widths: Widths, seed: int) -> float:
        heirs = self._factory.candidate if self._fresh else self._factory.heirs("search")
        network = heirs(widths).to(self._factory.task.device)
        if self._fresh:
            reinitialise(network, seed=seed)
        be_looked_at(network)
        with torch.random.fork_rng(devices=[]), plain_attention():
            torch.manual_seed(seed)
            return float(self._proxy(ProxyNetwork(network, self._batch, self._loss)))


def be_looked_at(network: nn.Module) -> None:
    """Norms by the batch, nothing dropped, and gradients for all weights, also for those that trainings leave alone."""
    network.eval()  # whatever drops something looks at this, with a module for it or not
    for module in network.modules():
        if isinstance(module, _NormBase):
            module.train()
        elif isinstance(module, nn.RNNBase):  # cuDNN differentiates them in training mode only
            module.train()
            module.dropout = 0.0
    for parameter in network.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)


def _batch(factory: CandidateFactory, examples: int) -> Batch:
    """The first training examples, in one batch.

    Raises:
        ConfigError: there are none.
    """
    batches = factory.task.calibration_batches(1, seed=0)
    if not batches:
        raise ConfigError(
            "evaluator 'zero_cost': this proxy looks at inputs, and the task has none; give data, or choose a proxy of "
            "shapes (log_width, nsc, params, flops)"
        )
    return batches[0].first(examples).to(factory.task.device)


def _loss_of(objective: Callable[[Any, Any], Tensor]) -> Callable[[Any, Batch], Tensor]:
    def loss(outputs: Any, batch: Batch) -> Tensor:
        if isinstance(objective, LossOfOutputs):
            return objective(outputs, batch.targets, batch.inputs)
        return objective(outputs, batch.targets)

    return loss
