from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from small_networks import space_of

from autoprune.allocation.published import published
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import SearchSpace
from autoprune.testing.spaces import chain_space

DOMAIN = BudgetedSpace(chain_space((16, 32, 64)), {"flops": "40%"})


def written(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("name", ["widths.json", "widths.yaml"])
def test_widths_that_fit_the_budget_stay_as_they_were(name: str, tmp_path: Path) -> None:
    widths = tuple(int(w) for w in DOMAIN.sample(1, np.random.default_rng(5))[0])
    as_mapping = written(tmp_path / name, DOMAIN.space.by_name(widths))
    assert published(DOMAIN, file=as_mapping) == widths
    assert published(DOMAIN, file=written(tmp_path / f"list_{name}", list(widths))) == widths


def test_widths_of_another_budget_are_scaled_with_their_ratios(tmp_path: Path) -> None:
    widths = published(DOMAIN, file=written(tmp_path / "w.json", [16, 16, 64]))
    assert DOMAIN.feasible(np.array([widths]))[0]
    assert widths[0] / 16 == pytest.approx(widths[2] / 64, abs=0.1)
    assert widths[1] / 32 == pytest.approx(widths[2] / 128, abs=0.1)


def test_layers_are_found_by_the_names_of_members(tmp_path: Path) -> None:
    space = space_of("resnet20")
    domain = BudgetedSpace(space, {"flops": "60%"})
    given = {group.members[-1]: group.width // 2 for group in space.groups}
    assert domain.feasible(np.array([published(domain, file=written(tmp_path / "w.yaml", given))]))[0]


def test_what_is_missing_can_be_full_or_as_the_others(tmp_path: Path) -> None:
    file = written(tmp_path / "w.json", {"conv0": 8, "conv1": 16})
    full = published(DOMAIN, file=file, missing="full")
    mean = published(DOMAIN, file=file, missing="mean")
    assert full[2] > mean[2]
    with pytest.raises(ConfigError, match="lacks 1 of 3 groups: conv2; add them"):
        published(DOMAIN, file=file)


def two_members() -> BudgetedSpace:
    space = DOMAIN.space
    groups = (replace(space.groups[0], members=("conv0", "shortcut")), *space.groups[1:])
    return BudgetedSpace(SearchSpace(groups, (), space.operations, space.tensors), {"flops": "40%"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv0": 8, "conv1": 16, "conv3": 3}, "'conv3', which cannot be cut. Did you mean"),
        ({"conv0": 8, "shortcut": 9, "conv1": 16, "conv2": 9}, "'conv0' the width 8 and 'shortcut' 9, but both"),
        ({"conv0": 0, "conv1": 16, "conv2": 9}, "'conv0' must be a number above 0 and at most 16"),
        ({"conv0": 17, "conv1": 16, "conv2": 9}, "at most 16, the full width, got 17"),
        ({"conv0": "half", "conv1": 16, "conv2": 9}, "got 'half'"),
        ({"conv0": float("nan"), "conv1": 16, "conv2": 9}, "got nan"),
        ([8, 16], "or list one width for each of 3 groups; it holds a list of 2"),
        (None, "it holds NoneType"),
    ],
)
def test_files_that_do_not_fit_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        published(two_members(), file=written(tmp_path / "w.json", content))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        published(DOMAIN, file=str(tmp_path / "nowhere.json"))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "broken.yaml").write_text("[")
    for name in ("broken.json", "broken.yaml"):
        with pytest.raises(ConfigError, match="is neither YAML nor JSON"):
            published(DOMAIN, file=str(tmp_path / name))
