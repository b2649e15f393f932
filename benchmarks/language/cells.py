"""Searches and measured networks, each kept as soon as it is there."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch

import autoprune
from autoprune.config.space import SpaceOptions
from autoprune.config.training import Recipe
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.importance.members import rank_channels
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.tasks.base import TaskInputs, make_task
from language.base import LanguageBase, perplexity

SPACE = {"min_ratio": 0.25, "kinds": {"embedding": {"divisor": 8, "min_ratio": 0.5}, "mlp": {"divisor": 16}}}
EXAMPLES = 128
"""Blocks that weights are fitted on."""

CHAINS: dict[str, list[dict[str, Any]]] = {
    "as sliced": [],
    "least squares": [{"name": "least_squares", "settings": {"images": EXAMPLES}}],
    "sequential": [{"name": "sequential_least_squares", "settings": {"images": EXAMPLES}}],
}
"""Name in the table -> what is done to the weights that stay."""

CALIBRATION = 16
"""Blocks of a batch of calibration inputs."""


@final
@dataclass(frozen=True, slots=True)
class LanguageCell:
    """One network, measured on the test part.

    Attributes:
        arm: "base", "uniform_all", "uniform_inner", "searched" or "searched as sliced".
        chain: one of `CHAINS`.
        seed: of the search and of the draw of calibration inputs.
        widths: kept channels by group.
        perplexity: per character, by torch alone.
        divergence: from the base network in nats per character.
        params: percent of the base network's.
        seconds: CPU time of cutting and refitting.
    """

    arm: str
    chain: str
    seed: int
    widths: Widths
    perplexity: float = 0.0
    divergence: float = 0.0
    params: float = 0.0
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is a measurement of."""
        return self.arm, self.chain, self.seed


@final
class LanguageCells:
    """Cells in a file of JSON lines; what it holds is not measured again.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]
        self.cells = [LanguageCell(**{**row, "widths": tuple(row["widths"])}) for row in rows]

    def __contains__(self, key: object) -> bool:
        return key in {cell.key for cell in self.cells}

    def add(self, cell: LanguageCell) -> None:
        """Keep one."""
        self.cells.append(cell)
        print(
            f"{' / '.join(map(str, cell.key))}: perplexity {cell.perplexity:.3f}, {cell.divergence:.4f} nats",
            flush=True,
        )
        with self._path.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(cell)) + "\n")


@final
class Laboratory:
    """Cuts and measures one base network.

    Args:
        base: the network and its text.
        folder: of everything that is kept.
    """

    def __init__(self, base: LanguageBase, folder: Path) -> None:
        self.base, self._folder = base, folder

    def searched(self, seed: int, *, refitted: bool, budget: int, trials: int) -> tuple[float, dict[str, Widths]]:
        """Search by divergence alone, or read the search that was done or begun.

        Args:
            seed: of the search; the calibration inputs of candidates are always the first draw.
            refitted: candidates are scored after least squares, not as they are sliced.
            budget: percent of the parameters.
            trials: proposals of the controller.

        Returns:
            CPU seconds, 0 where it was done already, and arm -> widths.
        """
        place = self._folder / f"search-{budget}-{trials}-{'refitted' if refitted else 'sliced'}-{seed}"
        started = time.process_time()
        result = autoprune.search(
            self.base.model,
            self.base.example,
            constraints={"params": f"{budget}%"},
            data=self.base.splits,
            task={"name": "language_model", "measure": {"name": "divergence"}},
            evaluator={"name": "inherited", "settings": {"validation_limit": 96, "paired": True}},
            inherit=CHAINS["least squares" if refitted else "as sliced"],
            space=SPACE,
            trials=trials,
            training={"batch_size": CALIBRATION},
            verdict={"seeds": 0, "latency": False},
            seed=seed,
            threads=1,
            run_dir=place,
            resume=(place / "job.yaml").exists(),
            callbacks=[],
            progress="plain",
        )
        return time.process_time() - started, {arm.name: arm.widths for arm in result.record.arms}

    def measured(self, arm: str, chain: str, seed: int, widths: Widths) -> LanguageCell:
        """Cut, refit by the draw of a seed that no search has seen, and measure on test."""
        started = time.process_time()
        factory = dataclasses.replace(self._factory, inherit=tuple(CHAINS[chain]))
        network = factory.heirs("final", draw=1 + seed)(widths)
        seconds = time.process_time() - started
        divergence = abs(self._factory.task.score(network, split="test"))
        found = perplexity(network, self.base.splits)
        full = sum(p.numel() for p in self.base.model.parameters())
        params = 100 * sum(p.numel() for p in network.parameters()) / full
        return LanguageCell(arm, chain, seed, widths, found, divergence, params, seconds)

    @cached_property
    def _factory(self) -> CandidateFactory:
        model, device = self.base.model, torch.device("cpu")
        traced = trace(model, self.base.example, options=SpaceOptions.model_validate(SPACE))
        verified = verify(model, traced, seed=0)
        ranking = rank_channels(verified.network, verified.space, "l2", seed=0)
        recipe = Recipe(batch_size=CALIBRATION)
        given = TaskInputs(model, self.base.splits, recipe, device)
        task = make_task("language_model", {}, given, measure={"name": "divergence"})
        return CandidateFactory(verified.network, verified.space, ranking, task, base_epochs=1)

    @property
    def space(self) -> SearchSpace:
        """Of the network."""
        return self._factory.space
