"""One cell of the tables: a network, a share of its FLOPs, a criterion, an inheritance list; and cells on disk."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.importance.evidence import Calibration
from autoprune.importance.members import rank_channels
from autoprune.inherit import INHERITANCE
from autoprune.inherit.base import Chain, Statistics
from autoprune.inherit.bn_recalibration import recalibrate_batch_norm
from autoprune.space.cutting.slicing import Slicer
from autoprune.space.groups import Widths
from autoprune.space.origin import in_form
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from reconstruction import peer
from reconstruction.bases import Trained

_CPU = torch.device("cpu")
_SETTINGS: Mapping[str, Sequence[Mapping[str, Any]]] = {"least_squares": ({"moments": "channel"}, {"moments": "patch"})}


def _chains() -> dict[str, list[Any]]:
    """Name in the tables -> methods; each is followed by recalibrated batch norms."""
    after = "bn_recalibration"
    made: dict[str, list[Any]] = {"sliced": [], "recalibrated": [after]}
    for name in INHERITANCE.names():
        if name not in (after, "bias_compensation"):  # the latter is mean_fold
            for settings in _SETTINGS.get(name, ({},)):
                told = "".join(f" ({value})" for value in settings.values())
                made[f"{name}{told}"] = [{"name": name, "settings": dict(settings)}, after]
    return made


CHAINS = _chains()


@final
@dataclass(frozen=True, slots=True)
class Measured:
    """A cell; what is measured is None until it is.

    Attributes:
        network: its name.
        budget: percent of the FLOPs that it may use.
        criterion: that ranks the channels.
        chain: what is done to the weights, one of `CHAINS`; "peer" for Torch-Pruning.
        score: of the network right after the cut.
        base: of the full network.
        flops: percent of the full network's.
        first: seconds of the first candidate, statistics included.
        next: seconds of a second one, without slicing.
        pass_seconds: of scoring 1,000 inputs of the calibration with the cut network.
        others: for the peer, what each criterion gave, as it is and recalibrated; ours at its FLOPs.
    """

    network: str
    budget: int
    criterion: str
    chain: str
    score: float | None = None
    base: float | None = None
    flops: float | None = None
    first: float | None = None
    next: float | None = None
    pass_seconds: float | None = None
    unit: str = ""
    others: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int, str, str]:
        """What it is a measurement of."""
        return self.network, self.budget, self.criterion, self.chain


@final
class Kept:
    """Cells in a file of JSON lines, written as they are measured; a last line that was cut short is measured again.

    Args:
        path: the file; what it holds is not measured again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._torn = bool(lines) and not lines[-1].endswith("}")
        self.cells = [Measured(**json.loads(line)) for line in lines if line.endswith("}")]

    def once(self, cell: Measured, work: Callable[[Measured], Measured]) -> None:
        """Measure a cell if it is not there."""
        if cell.key in {done.key for done in self.cells}:
            return
        done = work(cell)
        self.cells.append(done)
        print(f"{' '.join(map(str, done.key))}: {done.score:.2f} of {done.base:.2f} {done.unit}", flush=True)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write("\n" * self._torn + json.dumps(dataclasses.asdict(done)) + "\n")
        self._torn = False


def measure(made: Trained, cell: Measured) -> Measured:
    """Fill in a cell of ours."""
    return _ours(made, cell, cell.budget / 100)


def measure_peer(made: Trained, cell: Measured, *, seed: int) -> Measured:
    """Fill in the cell of Torch-Pruning: its best criterion, recalibrated where that is better; and ours beside it."""
    found: dict[str, Any] = {}
    labelled = [(x, y) for x, y in made.batches if y is not None]
    for cut in peer.cuts(made.model, made.example, cell.budget / 100, labelled):
        if isinstance(cut, tuple):
            found[cut[0]] = cut[1]
            continue
        plain = made.score(cut.model)
        recalibrate_batch_norm(cut.model, [x for x, _ in made.batches], device=_CPU)
        found[cut.criterion] = [plain, made.score(cut.model), cut.flops, cut.seconds]
    cells = {name: value for name, value in found.items() if isinstance(value, list) and value[2] < 1}
    if not cells:
        return replace(cell, score=float("nan"), base=made.base, unit=made.unit, others=found)
    best = max(cells, key=lambda name: max(cells[name][:2]))
    flops = cells[best][2]
    for chain in CHAINS:
        ours = _ours(made, replace(cell, criterion="l2", chain=chain), flops)
        found[f"autoprune {chain}"] = [ours.score, ours.flops]
    return replace(
        cell,
        score=max(cells[best][:2]),
        base=made.base,
        flops=100 * flops,
        unit=made.unit,
        first=cells[best][3],
        others={"best": best, **found},
    )


def _ours(made: Trained, cell: Measured, flops: float) -> Measured:
    verified = verify(made.model, trace(made.model, made.example))
    space, dense = verified.space, in_form(verified)(made.model)
    domain = BudgetedSpace(space, {"flops": f"{100 * flops}%"})
    widths = domain.uniform()
    objective = F.cross_entropy if made.labelled else None
    ranking = rank_channels(made.model, space, cell.criterion, calibration=Calibration(made.batches, objective))
    slicer = Slicer(dense, space, ranking)
    statistics = Statistics(lambda number: [x for x, _ in made.batches[:number]], _CPU)
    chain = Chain(CHAINS[cell.chain])
    start = time.perf_counter()
    chain.prepare(statistics)
    model = chain.apply(slicer.cut(widths), dense, statistics)
    first = time.perf_counter() - start
    again = slicer.cut(_narrower(domain, widths))
    start = time.perf_counter()
    chain.apply(again, dense, statistics)
    second = time.perf_counter() - start
    costs = domain.costs(torch.tensor([widths, space.full]).numpy())["flops"]
    return replace(
        cell,
        score=made.score(model),
        base=made.base,
        flops=100 * float(costs[0] / costs[1]),
        first=first,
        next=second,
        pass_seconds=_pass(made, model),
        unit=made.unit,
    )


def _narrower(domain: BudgetedSpace, widths: Widths) -> Widths:
    """Other widths, so that nothing that was made for the first ones serves the second."""
    groups = domain.space.groups
    return tuple(max([c for c in g.choices if c < w], default=w) for g, w in zip(groups, widths, strict=True))


def _pass(made: Trained, model: torch.nn.Module) -> float:
    """Seconds of 1,000 inputs."""
    inputs = [x for x, _ in made.batches]
    with torch.inference_mode():
        start = time.perf_counter()
        for batch in inputs:
            model(batch)
    return (time.perf_counter() - start) * 1000 / sum(map(len, inputs))
