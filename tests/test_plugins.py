"""Parts of other packages, each written in one file outside of ours, work from a job through their entry points.

Here those of a search: criterion, inheritance and allocation in one job. `PROVED` says where other kinds are shown.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny import write_job

from autoprune import registry
from autoprune.cli.parts import KINDS, parts_json
from autoprune.config.job import load_job
from autoprune.errors import AutopruneError
from autoprune.pipeline import driver
from autoprune.registry import Registry, load_object

ROOT = Path(__file__).parent

CRITERION = '''
import torch


def late(evidence, rng, *, first=0):
    """The later a channel stands, the more it counts.

    Args:
        first: channels at the front that count most.
    """
    scores = torch.arange(1.0, evidence.width + 1)
    scores[:first] += evidence.width
    return scores


late.source, late.use = "Doe 2027", "When the front is dull."
'''
DATA_CRITERION = '''
from autoprune.importance.evidence import criterion

SEEN = []


@criterion("gradients", members=None)
def pull(evidence, rng):
    """Size of the gradient of the loss by each gate."""
    SEEN.append(evidence.gradients.gates.shape)
    return evidence.gradients.gates.abs()
'''
INHERITANCE = '''
from autoprune.inherit.base import Inheritance


class Shift(Inheritance):
    """Adds a constant to the bias of the head.

    Args:
        by: the constant.
    """

    changes = "offsets"
    needs_data = False

    def __init__(self, *, by=1.0):
        self._by = by

    def apply(self, cut, dense, statistics):
        cut.network.head.bias.data += self._by
'''
ALLOCATION = '''
from autoprune.allocation.base import allocation


@allocation(criterion="first_k")
def back_heavy(domain, scores, *, front=0.25):
    """A small first group, and then as much as the budget allows.

    Args:
        front: share of the first group.
    """
    assert all((one[:-1] > one[1:]).all() for one in scores)  # of first_k, not of the job
    first, second = domain.space.groups
    narrow = max(1, round(front * first.width))
    return max((narrow, wide) for wide in second.choices if domain.feasible([(narrow, wide)])[0])
'''
PARTS = {
    "autoprune.importance": {"late": ("plug_late", "late", CRITERION), "pull": ("plug_pull", "pull", DATA_CRITERION)},
    "autoprune.inherit": {"shift": ("plug_shift", "Shift", INHERITANCE)},
    "autoprune.allocation": {"back_heavy": ("plug_back", "back_heavy", ALLOCATION)},
}

PROVED = {
    "autoprune.objectives": "pipeline/test_own_trainings.py",
    "autoprune.terms": "pipeline/test_own_trainings.py",
    "autoprune.schedules": "pipeline/test_own_trainings.py",
    "autoprune.tasks": "pipeline/test_measured_runs.py",
    "autoprune.measures": "pipeline/test_measured_runs.py",
    "autoprune.callbacks": "pipeline/test_runs_told.py",
    "autoprune.kinds": "space/kinds/test_kinds.py",
    "autoprune.operator_rules": "space/tracing/test_operator_rows.py",
}
"""Entry-point group -> the test in which a part of another package comes through it."""


@pytest.fixture
def plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    offered = {}
    for group, parts in PARTS.items():
        for module, _, text in parts.values():
            (tmp_path / f"{module}.py").write_text(text)
        points = [EntryPoint(name, f"{module}:{part}", group) for name, (module, part, _) in parts.items()]
        offered[group] = EntryPoints(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "entry_points", lambda group: offered.get(group, ()))
    yield
    for parts in PARTS.values():
        for module, _, _ in parts.values():
            sys.modules.pop(module, None)


def run(tmp_path: Path, **search: Any) -> Any:
    changes = {f"search.{name}": chosen for name, chosen in search.items()} | {"verdict.seeds": 0}
    job = load_job(write_job(tmp_path / "job.yaml", changes))
    (record,) = driver.start_job(job, tmp_path / "run", progress="silent")
    return record


def test_criterion_inheritance_and_allocation_of_other_packages_make_the_network_of_a_job(
    plug_ins: None, tmp_path: Path
) -> None:
    chosen = {
        "criterion": {"name": "late", "settings": {"first": 1}},
        "inherit": [{"name": "shift", "settings": {"by": 0.5}}],
        "allocations": [{"name": "back_heavy", "settings": {"front": 0.5}}],
    }
    record = run(tmp_path, **chosen)
    written = yaml.safe_load((tmp_path / "run/job.yaml").read_text())["search"]
    assert {name: written[name] for name in chosen} == chosen

    (proposed,) = [trial for trial in record.trials if trial.origin.startswith("back_heavy")]
    assert proposed.widths[0] == 4 < proposed.widths[1]

    base = load_file(tmp_path / "run/base.safetensors")
    winner = load_file(tmp_path / "run/export/model.safetensors")
    first, second = (len(winner[f"conv{n}.weight"]) for n in (1, 2))
    keep = [[0, *range(full - width + 1, full)] for full, width in ((8, first), (12, second))]
    assert first < 8 or second < 12
    assert torch.equal(winner["conv1.weight"], base["conv1.weight"][keep[0]])
    assert torch.equal(winner["conv2.weight"], base["conv2.weight"][keep[1]][:, keep[0]])
    assert torch.equal(winner["norm2.running_mean"], base["norm2.running_mean"][keep[1]])  # not recalibrated
    assert torch.equal(winner["head.bias"], base["head.bias"] + 0.5)


def test_a_criterion_of_another_package_is_given_the_evidence_that_it_asks_for(plug_ins: None, tmp_path: Path) -> None:
    run(tmp_path, criterion="pull")
    import plug_pull

    assert set(plug_pull.SEEN) == {(8,), (12,)}


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"criterion": {"name": "late", "settings": {"frst": 1}}}, "no setting 'frst'.* Did you mean 'first'"),
        ({"inherit": ["shift", {"name": "shift", "settings": {"to": 1}}]}, "no setting 'to'; its settings are by"),
        ({"allocations": ["back_heavi"]}, "Did you mean 'back_heavy'"),
        ({"criterion": "lat"}, "Did you mean 'late'"),
        ({"inherit": ["bn_recalibration", "shift"]}, "shift must stand before bn_recalibration"),
    ],
)
def test_what_is_wrong_with_them_is_said_before_anything_is_written(
    search: dict[str, Any], message: str, plug_ins: None, tmp_path: Path
) -> None:
    with pytest.raises(AutopruneError, match=message):
        run(tmp_path, **search)
    assert not (tmp_path / "run").exists()


def test_they_are_listed_with_source_and_use(plug_ins: None) -> None:
    late = {"name": "late", "source": "Doe 2027", "use": "When the front is dull."}
    assert parts_json("criteria")["criteria"][-2] == late
    assert parts_json("inheritance")["inheritance"][-1]["use"] == "Adds a constant to the bias of the head."
    assert parts_json("allocations")["allocations"][-1]["name"] == "back_heavy"


@pytest.mark.parametrize(("group", "file"), PROVED.items())
def test_other_kinds_are_shown_where_it_says(group: str, file: str) -> None:
    text = (ROOT / file).read_text()
    assert "EntryPoint(" in text
    assert f'"{group}"' in text


def test_every_kind_of_part_can_come_from_another_package() -> None:
    tables: list[Registry] = [load_object(path) for path in KINDS.values()]
    groups = [table._group for table in tables]
    assert None not in groups
    assert len(set(groups)) == len(groups)
