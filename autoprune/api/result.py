"""What a search returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import final

from torch import nn

from autoprune.api.space import Space
from autoprune.config.parts import ChosenPart
from autoprune.controllers.base import Trial
from autoprune.export.architecture import load
from autoprune.export.writing import DEFAULT
from autoprune.files import read_json
from autoprune.pipeline import driver
from autoprune.pipeline.earlier import check_concluded
from autoprune.space.groups import Widths
from autoprune.space.origin import full_network
from autoprune.space.tracing.program import Example
from autoprune.trials.run_files import check_files
from autoprune.verdict.record import WINNER, Arm, RunRecord, Verdict


@final
@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found; everything is also in `directory`."""

    record: RunRecord
    _full_model: nn.Module | None

    @cached_property
    def model(self) -> nn.Module:
        """The winner with its final weights, in evaluation mode, on CPU.

        Raises:
            RunError: its files are lost or damaged, or the run has gone on since.
        """
        return self.network()

    def network(self, arm: str = WINNER) -> nn.Module:
        """A network of the comparison with its final weights (first protocol, first seed), in evaluation mode, on CPU.

        Args:
            arm: "winner", "uniform_all", "uniform_inner", "random_median", …

        Raises:
            RunError: there is no such arm, an older version did not keep its weights, its files are lost or damaged, or
                the run has gone on since.
        """
        check_concluded(self.record)
        folder = driver.folder_of(arm)
        check_files(self.directory, (f"{folder}/",), "the same search with resume=True makes it again")
        # trusted: its job has run here
        return load(driver.exported_arm(self.record, arm), model=self._full_model, trust=True)

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self.record.directory

    @property
    def widths(self) -> Widths:
        """The winner's widths, in the order of the space's groups."""
        return self.record.winner.widths

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every scored proposal, baselines included."""
        return self.record.trials

    @property
    def baselines(self) -> tuple[Arm, ...]:
        """Uniform and random networks at the same cost."""
        return self.record.arms[1:]

    @property
    def verdict(self) -> Verdict | None:
        """The comparison with uniform pruning; None where no final networks were trained."""
        return self.record.verdict

    @property
    def space(self) -> Space:
        """What was searched."""
        origin = read_json(self.directory / "space.json").get("origin")
        return Space(self.record.space, partial(full_network, space=self.record.space, origin=origin))

    def report(self) -> Path:
        """Write report.html and report.md anew and return the path of the page.

        Raises:
            RunError: the run has gone on since.
        """
        check_concluded(self.record)
        driver.write_all_reports(self.directory)
        return self.directory / "report.html"

    def save(
        self,
        folder: Path | str,
        formats: Sequence[ChosenPart] = DEFAULT,
        *,
        arm: str = WINNER,
        example: Example | None = None,
    ) -> Path:
        """Write the winner, or another arm, to a new folder, in all formats or not at all.

        Args:
            folder: new or empty.
            formats: of `autoprune parts exporters`; `safetensors` is what `autoprune.load(folder)` reads.
            arm: "winner", "uniform_all", …: a name in `result.record.arms`.
            example: what the network is called with, in place of the example input of the search; its batch is free
                where the format allows it, other dimensions are not.

        Raises:
            RunError: the folder is not empty or cannot be written, there is no such arm, or the run has gone on since.
            ExportError: a format cannot be written, or computes something else than the network.
        """
        check_concluded(self.record)
        model = self._full_model
        return driver.export_run(
            self.directory, Path(folder), formats, arm=arm, model=model, example=example, trust=True
        )
