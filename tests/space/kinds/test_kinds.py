"""Kinds of groups: laws of each, and a kind made up here that nothing else knows."""

from __future__ import annotations

import io
from importlib.metadata import EntryPoint, EntryPoints

import numpy as np
import pytest
from rich.console import Console

from autoprune import registry
from autoprune.api.space import Space
from autoprune.cli.tables import space_tables
from autoprune.controllers import CONTROLLERS, make_controller
from autoprune.controllers.parts.ratios import from_log_ratios, log_ratios, random_widths
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import RegistryError, SpaceError
from autoprune.latency import profile
from autoprune.space.arrays import BoolArray, FloatArray
from autoprune.space.groups import SearchSpace, WidthGroup
from autoprune.space.kinds import KINDS, Kind
from autoprune.space.kinds.base import Settling
from autoprune.space.sizes import AffineSize, Operation
from autoprune.testing.controllers import block_space, drive


class Density(Kind):
    """How many of every four weights of a layer are kept: settled before widths scale, and never 0."""

    scales = False
    ranked = False
    label = "n of 4"

    def drawn(self, full: FloatArray, ratios: FloatArray, chances: FloatArray) -> FloatArray:
        return self.decided(ratios * full)

    def mutated(self, parents: FloatArray, chosen: BoolArray, steps: FloatArray) -> FloatArray:
        return parents + np.where(steps > 0, 1.0, -1.0) * chosen

    def log_ratios(self, ratios: FloatArray) -> FloatArray:
        return np.asarray(np.log(ratios))

    def from_log_ratios(self, logs: FloatArray, full: FloatArray) -> FloatArray:
        return self.decided(np.exp(np.minimum(logs, 0.0)) * full)

    def moved(self, logs: FloatArray, steps: FloatArray, chosen: BoolArray) -> FloatArray:
        return logs + 2 * steps * chosen

    def near(self, logs: FloatArray, centre: FloatArray, distance: float) -> FloatArray:
        return np.clip(logs, centre - distance, centre + distance)

    def decided(self, proposals: FloatArray) -> FloatArray:
        return np.clip(np.rint(proposals), 1, 4)

    def settle(self, rows: Settling) -> None:
        least, most = rows.low[:, rows.columns].copy(), rows.high[:, rows.columns].copy()
        wanted = np.clip(self.decided(rows.given[:, rows.columns]), least, most)
        for step in (1, -1):
            wrong = np.ones(len(wanted), dtype=np.bool_)
            while wrong.any():
                rows.low[:, rows.columns] = rows.high[:, rows.columns] = wanted
                room = rows.usage(rows.high) < rows.enough if step > 0 else rows.usage(rows.low) > 1.0
                moved = np.clip(wanted + step, least, most)
                wrong = room & (moved != wanted).any(axis=1)
                wanted = np.where(wrong[:, None], moved, wanted)


def offer(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Let an installed package offer a kind of this module as "density"."""
    points = EntryPoints([EntryPoint("density", f"{__name__}:{what}", "autoprune.kinds")])
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
    monkeypatch.setattr(KINDS, "_made", dict(KINDS._made))


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> SearchSpace:
    """Blocks, heads and channels, and a density for two of the layers."""
    offer(monkeypatch, "Density")
    plain, n = block_space(), len(block_space().groups)
    groups = list(plain.groups)
    groups[1] = WidthGroup("heads", 32, groups[1].choices, kind="heads")
    groups += [WidthGroup(f"density{i}", 4, (1, 2, 3, 4), kind="density") for i in range(2)]
    operations = [
        Operation(
            op.layer, op.kind, op.coefficient, (*op.sizes, AffineSize(0, ((n + i, 1),)) if i < 2 else AffineSize(4))
        )
        for i, op in enumerate(plain.operations)
    ]
    return SearchSpace(tuple(groups), (), tuple(operations), blocks=plain.blocks)


def members_of(space: SearchSpace, n: int = 200) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([rng.choice(group.choices, n) for group in space.groups], axis=1)


def test_coordinates_of_members_lead_back_to_them(space: SearchSpace) -> None:
    domain, members = BudgetedSpace(space, {"flops": "50%"}), members_of(space)
    logs = log_ratios(domain, members)
    assert (from_log_ratios(domain, logs) == members).all()
    assert (log_ratios(domain, [space.full]) == 0).all()
    assert (logs <= 0).all()


def test_what_is_not_chosen_does_not_change_and_every_step_leads_to_a_member(space: SearchSpace) -> None:
    domain, members = BudgetedSpace(space, {"flops": "50%"}), members_of(space)
    chosen = np.random.default_rng(1).random(members.shape) < 0.3
    steps = np.random.default_rng(2).choice([-0.5, 0.5], members.shape) * chosen
    changed = space.kinds.mutated(members, chosen, steps)
    assert ((changed != members) == chosen).all()
    assert all(tuple(row) in space for row in domain.repair(changed).tolist())


def test_a_neighbour_in_coordinates_moves_where_steps_are_small_and_switches_only_the_chosen(
    space: SearchSpace,
) -> None:
    logs = space.kinds.log_ratios([space.full])
    steps = np.full(logs.shape, -0.1)
    for chosen in (False, True):
        moved = space.kinds.moved(logs, steps, np.full(logs.shape, chosen))
        for index, group in enumerate(space.groups):
            assert (moved[0, index] != 0) == (chosen or KINDS[group.kind].scales)


def test_widths_are_held_near_a_centre_and_blocks_are_not(space: SearchSpace) -> None:
    logs = space.kinds.log_ratios(members_of(space))
    near = space.kinds.near(logs, np.zeros((1, logs.shape[1])), 0.2)
    for index, group in enumerate(space.groups):
        held = group.kind != "blocks"
        assert (near[:, index] >= -0.2).all() == held
        assert (near[:, index] == logs[:, index]).all() != held


def test_random_members_of_all_three_callers_are_of_every_kind(space: SearchSpace) -> None:
    domain = BudgetedSpace(space, {"flops": "50%"})
    rng = np.random.default_rng(0)
    proposals = random_widths(domain, 100, rng, least=0.05)
    for rows in (domain.sample(100, rng), domain.repair(proposals), profile.random_widths(space, 100, rng)):
        assert all(tuple(row) in space for row in rows.tolist())
        assert all(len(np.unique(column)) > 1 for column in rows.T)
    on = proposals[:, [group.kind == "blocks" for group in space.groups]]
    assert set(np.unique(on)) == {0.0, 1.0}
    assert 0.65 < on.mean() < 0.85  # a random share of at most a half is missing


def test_uniform_networks_keep_whole_what_does_not_scale(space: SearchSpace) -> None:
    held = ~space.kinds.scales
    assert held.sum() == 5
    for widths in (space.uniform(0.3), BudgetedSpace(space, {"flops": "50%"}).uniform()):
        assert (np.array(widths)[held] == np.array(space.full)[held]).all()
        assert (np.array(widths)[~held] < np.array(space.full)[~held]).all()


@pytest.mark.parametrize("budget", ["60%", "20%", "5%"])
def test_repair_settles_what_does_not_scale_and_then_fills_the_budget(space: SearchSpace, budget: str) -> None:
    domain = BudgetedSpace(space, {"flops": budget})
    rows = domain.repair(members_of(space))
    assert all(tuple(row) in space for row in rows.tolist())
    assert domain.feasible(rows).all()
    assert np.mean(domain.budget.usage(rows) > 0.97) > 0.9


@pytest.mark.parametrize("name", CONTROLLERS.names())
def test_a_kind_that_no_controller_knows_is_searched_by_each(space: SearchSpace, name: str) -> None:
    domain = BudgetedSpace(space, {"flops": "50%"})
    controller = make_controller(name, domain, seed=0, settings={})
    asked = drive(controller, 3, score=lambda widths: float(sum(widths[-2:])) + 0.01 * widths[0])
    assert all(widths in space for widths in asked)
    assert not controller.keeps_budget or domain.feasible(np.array(asked)).all()


def test_a_kind_is_shown_as_it_says(space: SearchSpace) -> None:
    console = Console(width=200, file=io.StringIO())
    for part in space_tables(Space(space)):
        console.print(part)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "density0 (n of 4)" in shown
    assert "heads (heads)" in shown
    assert "stem (" not in shown


def test_a_kind_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"'g' cannot be of kind 'colours'; kinds are channels, heads, blocks"):
        WidthGroup("g", 4, (4,), kind="colours")


def test_kinds_of_other_packages_stand_behind_ours_and_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(KINDS) == ["channels", "heads", "blocks", "weights", "ranks", "bits", "resolution"]
    with pytest.raises(SpaceError, match="cannot be of kind 'density'; kinds are channels, heads, blocks"):
        WidthGroup("x", 4, (1, 2, 3, 4), kind="density")
    offer(monkeypatch, "Density")
    assert list(KINDS) == ["channels", "heads", "blocks", "weights", "ranks", "bits", "resolution", "density"]
    assert len(KINDS) == 8
    assert KINDS["density"] is KINDS["density"]
    assert isinstance(KINDS["density"], Density)


@pytest.mark.parametrize("what", ["offer", "SearchSpace", "Kind"])
def test_what_is_no_kind_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    offer(monkeypatch, what)
    with pytest.raises(
        RegistryError, match=r"kind of group 'density' is .*; offer a subclass of autoprune\.space\.kinds"
    ):
        WidthGroup("x", 4, (1, 2, 3, 4), kind="density")
