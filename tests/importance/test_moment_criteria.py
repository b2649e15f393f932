"""Criteria on second moments against contributions that are formed, explicit refits, brute force and scikit-learn."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from read_networks import Reading, images, inputs_of, reading, scored
from sklearn.linear_model import Lasso, lars_path_gram
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.importance.contributions import contribution_gram
from autoprune.importance.evidence import Calibration, GroupEvidence, InputMoments
from autoprune.importance.lasso import lasso
from autoprune.importance.lasso_path import entry_penalties
from autoprune.importance.members import channel_scores
from autoprune.importance.obs import obs
from autoprune.importance.thinet import thinet
from autoprune.space.groups import SearchSpace

RNG = np.random.default_rng(0)
READERS = {"stem": ["inner", "grouped"], "inner": ["back"], "grouped": ["apart"], "apart": ["wide"], "wide": ["head"]}


@pytest.fixture(autouse=True)
def every_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracles look at all of them."""
    monkeypatch.setattr("autoprune.importance.gathering.POSITIONS", 1000)


@pytest.fixture(scope="module", params=[False, True], ids=["module", "graph"])
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, SearchSpace, Reading]:
    return reading(request.param)


def contributions(plain: Reading, group: str) -> list[np.ndarray[Any, Any]]:
    """(channels, rows, outputs) of each reader: its output with all other channels at zero, without its bias."""
    found = []
    for name in READERS[group]:
        layer = plain.get_submodule(name)
        read = inputs_of(plain, [name], images())[name]
        width = {"grouped": 4, "apart": 4}.get(group, 5 if group == "wide" else read.shape[1])
        channel = torch.arange(read.shape[1]) // 4 if group == "wide" else torch.arange(read.shape[1]) % width
        with torch.no_grad():
            constant = layer(torch.zeros_like(read[:1]))
            parts = []
            for number in range(width):
                mask = (channel == number).to(read.dtype).reshape(-1, *[1] * (read.ndim - 2))
                parts.append((layer(read * mask) - constant).movedim(1, -1).flatten(0, -2))
        found.append(torch.stack(parts).numpy())
    return found


def gram(parts: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    return np.asarray(sum(np.einsum("iro,jro->ij", p, p) / p.shape[1] for p in parts))


@pytest.mark.parametrize("group", READERS)
def test_inbound_variance_is_that_of_each_contribution(
    network: tuple[nn.Module, SearchSpace, Reading], group: str
) -> None:
    model, space, plain = network
    expected = np.asarray(sum(p.var(axis=1).sum(axis=1) for p in contributions(plain, group)))
    assert scored(model, space, "inbound_variance", group) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("group", READERS)
def test_thinet_is_the_greedy_search_over_contributions(
    network: tuple[nn.Module, SearchSpace, Reading], group: str
) -> None:
    model, space, plain = network
    parts = contributions(plain, group)
    width = len(parts[0])
    removed: list[int] = []
    while len(removed) < width:
        left = [j for j in range(width) if j not in removed]
        errors = [sum((p[[*removed, j]].sum(axis=0) ** 2).sum() / p.shape[1] for p in parts) for j in left]
        removed.append(left[int(np.argmin(errors))])
    assert scored(model, space, "thinet", group).argsort().tolist() == removed


def test_the_first_channels_of_thinet_are_the_best_single_ones_and_the_set_is_near_the_best_of_all() -> None:
    evidence = random_evidence(width=8)
    (reader,) = evidence.moments or ()
    matrix = contribution_gram([reader], 8).numpy()
    order = thinet(evidence, RNG).argsort().tolist()
    error = {t: matrix[np.ix_(t, t)].sum() for n in range(9) for t in itertools.combinations(range(8), n)}
    assert error[tuple(order[:1])] == min(error[t] for t in error if len(t) == 1)
    best = min(error[t] for t in error if len(t) == 4)
    assert error[tuple(sorted(order[:4]))] < np.median([error[t] for t in error if len(t) == 4])
    assert error[tuple(sorted(order[:4]))] >= best


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("group", READERS)
def test_obs_is_the_error_that_explicit_refits_leave(
    network: tuple[nn.Module, SearchSpace, Reading], group: str, constant: bool
) -> None:
    model, space, plain = network
    found = scored(model, space, "obs", group, constant=constant, ridge=1e-12)
    assert found == pytest.approx(refits(plain, group, constant), rel=1e-5)


def refits(plain: Reading, group: str, constant: bool) -> np.ndarray[Any, Any]:
    """Mean squared error of the outputs, fitted by numpy on unfolded inputs of all other channels."""
    total = np.zeros({"stem": 6, "inner": 8, "grouped": 4, "apart": 4, "wide": 5}[group])
    for name in READERS[group]:
        layer = plain.get_submodule(name)
        read = inputs_of(plain, [name], images())[name]
        for columns, outputs, channel in unfolded(layer, read, group):
            rows = np.c_[columns, np.ones(len(columns))] if constant else columns
            targets = outputs
            for number in range(len(total)):
                kept = np.r_[channel != number, [True]] if constant else channel != number
                fit, *_ = np.linalg.lstsq(rows[:, kept], targets, rcond=None)
                total[number] += ((targets - rows[:, kept] @ fit) ** 2).sum() / len(rows)
    return total


def unfolded(layer: nn.Module, read: Tensor, group: str) -> list[tuple[Any, Any, Any]]:
    """(rows of inputs, rows of outputs without a bias, channel of each input) of each group of a layer."""
    with torch.no_grad():
        outputs = layer(read) - layer(torch.zeros_like(read))
    if isinstance(layer, nn.Linear):
        return [(read.numpy(), outputs.numpy(), np.arange(20) // 4)]
    if isinstance(layer, nn.ConvTranspose2d):  # kernel 2, stride 2: each pixel makes 2 x 2 pixels, which do not overlap
        spread = torch.zeros(read.shape[0], 8, 4, *read.shape[2:]).double()
        rows = []
        for dy, dx in itertools.product(range(2), range(2)):
            patch = spread.clone()
            patch[:, :, 2 * dy + dx] = read
            rows.append(patch.permute(0, 3, 4, 1, 2).flatten(0, 2).flatten(1))
        made = [outputs[:, :, dy::2, dx::2].permute(0, 2, 3, 1).flatten(0, 2) for dy in (0, 1) for dx in (0, 1)]
        return [(torch.cat(rows).numpy(), torch.cat(made).numpy(), np.arange(8).repeat(4) % 4)]
    assert isinstance(layer, nn.Conv2d)
    found = []
    kernel, groups = layer.kernel_size[0], layer.groups
    for part, made in zip(read.chunk(groups, dim=1), outputs.chunk(groups, dim=1), strict=True):
        patches = F.unfold(part, kernel, padding=kernel // 2).movedim(1, -1).flatten(0, 1)
        channel = np.arange(part.shape[1]).repeat(kernel**2)
        found.append((patches.numpy(), made.movedim(1, -1).flatten(0, 2).numpy(), channel))
    return found


def random_evidence(width: int = 8, outputs: int = 5, rows: int = 200, seed: int = 0) -> GroupEvidence:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(width, width, generator=generator).double()
    inputs = torch.randn(rows, width, generator=generator).double() @ mixed + 0.3
    weight = torch.randn(1, outputs, width, generator=generator).double()
    moments = InputMoments(
        weight, (inputs.T @ inputs / rows)[None], inputs.mean(0)[None], torch.arange(width)[None], rows
    )
    return GroupEvidence(width, (), (), moments=(moments,))


@pytest.mark.parametrize("seed", range(12))
def test_entry_penalties_are_those_of_the_lars_path_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 15))
    rows = rng.normal(size=(40, n)) @ rng.normal(size=(n, n))
    matrix, target = rows.T @ rows / 40, rng.normal(size=n) if seed % 2 else rows.T @ rows.sum(axis=1) / 40
    alphas, _, path = lars_path_gram(Xy=target, Gram=matrix, n_samples=1, method="lasso", alpha_min=0)
    expected = np.zeros(n)
    for column in range(1, path.shape[1]):
        new = (path[:, column] != 0) & (expected == 0)
        expected[new] = alphas[column - 1]
    assert entry_penalties(matrix, target) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("group", ["stem", "inner", "wide"])
def test_lasso_enters_channels_where_scikit_learn_does(
    network: tuple[nn.Module, SearchSpace, Reading], group: str
) -> None:
    model, space, plain = network
    design = np.concatenate(
        [p.transpose(1, 2, 0).reshape(-1, len(p)) / np.sqrt(p.shape[1]) for p in contributions(plain, group)]
    )
    found = scored(model, space, "lasso", group, unit_norms=False, ridge=1e-12)
    for penalty in np.sort(found)[:-1] * 1.001 + 1e-12:
        fit = Lasso(penalty / len(design), fit_intercept=False, tol=1e-12, max_iter=200_000)
        chosen = fit.fit(design, design.sum(axis=1)).coef_ != 0
        assert (chosen <= (found > penalty)).all()
        assert chosen.sum() >= (found > penalty).sum() - 1  # one may have left the path again


def test_unit_norms_divide_contributions_by_the_norm_of_their_weights() -> None:
    evidence = random_evidence()
    (reader,) = evidence.moments or ()
    norms = reader.weight[0].norm(dim=0)
    matrix = contribution_gram([reader], 8)
    scaled = (matrix / norms[:, None] / norms).numpy()
    expected = entry_penalties(scaled, (matrix.sum(dim=1) / norms).numpy())
    assert lasso(evidence, RNG, ridge=1e-12).numpy() == pytest.approx(expected, rel=1e-6)
    assert lasso(evidence, RNG, unit_norms=False).numpy() != pytest.approx(expected, rel=1e-3)


def test_copies_and_silent_layers_are_scored() -> None:
    evidence = random_evidence()
    (reader,) = evidence.moments or ()
    copies = torch.arange(8) // 2 * 2
    second = reader.second[:, copies][:, :, copies]
    twins = GroupEvidence(
        8, (), (), moments=(InputMoments(reader.weight, second, reader.mean[:, copies], reader.channel, 200),)
    )
    silent = GroupEvidence(
        8, (), (), moments=(InputMoments(reader.weight, 0 * second, 0 * reader.mean, reader.channel, 200),)
    )
    for criterion in (lasso, obs, thinet):
        assert criterion(twins, RNG).isfinite().all()
        assert criterion(silent, RNG).isfinite().all()
    assert float(obs(twins, RNG, ridge=1e-9).max()) < 1e-6 * float(obs(evidence, RNG, ridge=1e-9).max())
    assert obs(silent, RNG).tolist() == lasso(silent, RNG).tolist() == [0.0] * 8


def test_settings_out_of_range_and_moments_too_large_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for criterion in (lasso, obs):
        with pytest.raises(ConfigError, match="ridge must be above 0, got 0"):
            criterion(random_evidence(), RNG, ridge=0)
    model, space, _ = reading()
    monkeypatch.setattr("autoprune.importance.gathering.MOST_MOMENTS", 100)
    with pytest.raises(Exception, match=r"'obs' needs moments, and those of the .* inputs of .* would take .* GB"):
        channel_scores(model, space, "obs", calibration=Calibration([(batch, None) for batch in images()]))
