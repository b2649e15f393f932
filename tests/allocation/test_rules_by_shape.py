"""Rules that go by shapes: numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small_networks import space_of

from autoprune.allocation.erk import densities, erk
from autoprune.allocation.isomorphic import classes_of, isomorphic
from autoprune.allocation.parts.shapes import ratios_of_shares, writers
from autoprune.allocation.smart_ratio import shares, smart_ratio
from autoprune.allocation.stagewise import stages_of, stagewise
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import SearchSpace
from autoprune.testing.allocations import heads_space, random_scores
from autoprune.testing.spaces import chain_space

CHAIN = chain_space((16, 32))  # weights 16x3x3x3, 32x16x3x3 and 10x32


def test_erk_densities_are_those_of_the_formula() -> None:
    found = densities(CHAIN)
    assert found["conv0.weight"] == pytest.approx((16 + 3 + 3 + 3) / (16 * 3 * 3 * 3))
    assert found["conv1.weight"] == pytest.approx((32 + 16 + 3 + 3) / (32 * 16 * 3 * 3))
    assert found["fc.weight"] == pytest.approx((10 + 32) / (10 * 32))


def test_a_group_has_the_square_root_of_what_its_layers_keep_together() -> None:
    ratios = ratios_of_shares(CHAIN, densities(CHAIN))
    assert ratios[0] == 1.0
    assert ratios[1] == pytest.approx(math.sqrt((54 / 4608) / (25 / 432)))


def test_erk_keeps_its_ratios_up_to_the_full_width_and_power_0_is_uniform() -> None:
    domain = BudgetedSpace(chain_space((64, 128, 256)), {"flops": "30%"})
    widths = np.array(erk(domain))
    ratios = ratios_of_shares(domain.space, densities(domain.space)) * domain.space.full
    factor = np.median((widths / ratios)[widths < domain.space.full])
    np.testing.assert_allclose(widths, np.minimum(ratios * factor, domain.space.full), atol=2.0)
    assert erk(domain, power=0.0) == domain.uniform()


def test_smart_ratios_of_three_layers() -> None:
    assert list(shares(CHAIN).values()) == [12.0, 6.0, 2.0]  # 3²+3, 2²+2, 1²+1
    assert list(shares(CHAIN, "vgg").values()) == [12.0, 1.5, pytest.approx(2 / 9)]
    assert list(shares(CHAIN, "linear").values()) == [3.0, 2.0, 1.0]
    assert list(shares(CHAIN, "cubic").values()) == [27.0, 8.0, 1.0]
    assert list(shares(CHAIN, "ascending").values()) == [2.0, 6.0, 12.0]


def test_smart_ratios_fall_with_the_depth_and_ascending_ones_rise() -> None:
    domain = BudgetedSpace(chain_space((64, 64, 64, 64)), {"flops": "30%"})
    assert list(smart_ratio(domain)) == sorted(smart_ratio(domain), reverse=True)
    assert list(smart_ratio(domain, form="ascending")) == sorted(smart_ratio(domain, form="ascending"))


def test_writers_are_the_layers_that_end_in_a_group() -> None:
    space = space_of("resnet20")
    written = writers(space)
    for group, of_group in zip(space.groups, written, strict=True):
        modules = {tensor.name.removesuffix(".weight") for tensor in of_group}
        assert modules <= set(group.members)
        assert modules
    stages = [len(w) for w, g in zip(written, space.groups, strict=True) if g.residual]
    assert stages[0] == 4  # the stem and three blocks


def test_isomorphic_groups_of_a_resnet_are_its_inner_widths() -> None:
    space = space_of("resnet20")
    inner = [g for g, group in enumerate(space.groups) if not group.residual]
    assert inner in classes_of(space)
    assert sorted(g for members in classes_of(space) for g in members) == list(range(len(space.groups)))


def test_a_transformer_has_classes_for_heads_mlps_and_the_stream() -> None:
    space = space_of("transformer")
    kinds = [{space.groups[g].kind for g in members} for members in classes_of(space)]
    assert all(len(kind) == 1 for kind in kinds)
    heads = [g for g, group in enumerate(space.groups) if group.kind == "heads"]
    assert heads in classes_of(space)


def test_the_scale_of_a_class_of_structures_does_not_matter() -> None:
    domain = BudgetedSpace(space_of("transformer"), {"flops": "50%"})
    scores = random_scores(domain.space)
    scaled = [s.copy() for s in scores]
    for number, members in enumerate(classes_of(domain.space)):
        for g in members:
            scaled[g] *= 1000.0**number
    assert isomorphic(domain, scaled) == isomorphic(domain, scores)


def test_each_class_keeps_about_the_same_share_of_its_channels() -> None:
    domain = BudgetedSpace(space_of("resnet20"), {"flops": "50%"})
    widths, full = np.array(isomorphic(domain, random_scores(domain.space))), np.array(domain.space.full)
    kept = [widths[m].sum() / full[m].sum() for m in classes_of(domain.space)]
    assert np.ptp(kept) < 0.15


def staged() -> SearchSpace:
    return heads_space()


def test_groups_of_a_stage_have_one_ratio() -> None:
    domain = BudgetedSpace(space_of("resnet20"), {"flops": "45%"})
    widths = np.array(stagewise(domain, random_scores(domain.space))) / domain.space.full
    stages = stages_of(domain.space)
    assert len(stages) == 3
    for stage in stages:
        assert np.ptp(widths[stage]) < 0.15


def test_given_ratios_are_kept_up_to_one_factor() -> None:
    domain = BudgetedSpace(space_of("resnet20"), {"flops": "20%"})
    widths = np.array(stagewise(domain, random_scores(domain.space), ratios=[0.4, 0.7, 0.9])) / domain.space.full
    first, second, third = (float(widths[stage].mean()) for stage in stages_of(domain.space))
    assert second / first == pytest.approx(0.7 / 0.4, rel=0.15)
    assert third / first == pytest.approx(0.9 / 0.4, rel=0.15)


def test_a_stage_without_importance_gives_way_first() -> None:
    domain = BudgetedSpace(staged(), {"flops": "50%"})
    scores = random_scores(domain.space)
    first, second = stages_of(domain.space)
    for g in second:
        scores[g] = 1e-3 * np.ones_like(scores[g])
    widths = np.array(stagewise(domain, scores, normalise="none")) / domain.space.full
    assert widths[first].mean() > widths[second].mean()
