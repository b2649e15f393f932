"""A small search without networks: scores are functions of widths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.evaluators.base import Evaluator
from autoprune.space.groups import SearchSpace, WidthGroup, Widths
from autoprune.testing.spaces import chain_space
from autoprune.trials.ledger import Ledger, open_storage
from autoprune.trials.session import SearchSession

ROOMY = BudgetedSpace(chain_space((16, 24, 32)), {"flops": "50%"})
PLAN = (("uniform_all", ROOMY.uniform()), ("random_baseline", ROOMY.space.nearest((16, 6, 24))))


class Fake(Evaluator):
    """Scores by a function; remembers what it was asked to evaluate."""

    def __init__(self, score: Callable[[Widths, int], object]) -> None:
        self._score = score
        self.calls: list[Widths] = []

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False) -> float:
        self.calls.append(widths)
        return self._score(widths, seed)  # type: ignore[return-value]  # some tests return what no evaluator should


def noisy(widths: Widths, seed: int) -> float:
    """A score that depends on the seed, as a short training's does."""
    return sum(width**0.5 for width in widths) + seed % 1000 / 500


def one_choice() -> BudgetedSpace:
    """A space with a single member."""
    space = chain_space((8, 12))
    fixed = tuple(WidthGroup(g.name, g.width, (g.width,), g.members) for g in space.groups)
    return BudgetedSpace(SearchSpace(fixed, (), space.operations, space.tensors), {"flops": "100%"})


def session(
    folder: Path,
    *,
    domain: BudgetedSpace = ROOMY,
    plan: Sequence[tuple[str, Widths]] = PLAN,
    controller: str = "random",
    controller_seed: int = 0,
    trials: int = 10,
    url: str | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> SearchSession:
    """A session on the ledger in a folder: a new one, or the continuation of what is there."""
    folder.mkdir(exist_ok=True)
    return SearchSession(
        domain,
        make_controller(controller, domain, seed=controller_seed, settings={}),
        Ledger(open_storage(url, folder / "journal.log"), "search", domain.space),
        plan=plan,
        trials=trials,
        seed=7,
        on_trial=on_trial,
    )


def gist(trials: Sequence[Trial]) -> list[tuple[object, ...]]:
    """What two equal runs share: all but the seconds."""
    return [(t.number, t.widths, t.state, t.score, t.origin, t.seed, t.told) for t in trials]
