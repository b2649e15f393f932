"""Proxies against computations that share no code with them: numpy, scipy, explicit Hessians, finite differences."""

from __future__ import annotations

import copy
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.stats import kendalltau
from torch import Tensor, nn

from autoprune.config.space import SpaceOptions
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError
from autoprune.importance.members import rank_channels
from autoprune.proxies import PROXIES
from autoprune.proxies.base import ProxyNetwork, looks_at
from autoprune.proxies.nsc import capacity
from autoprune.space.cutting.graph_form import graph_network
from autoprune.space.cutting.slicing import Slicer
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.trace import trace
from autoprune.zoo import build_model

OF_NETWORKS = [name for name in PROXIES.names() if looks_at(PROXIES.get(name)) != "shapes"]
OF_SHAPES = [name for name in PROXIES.names() if name not in OF_NETWORKS]


def loss(outputs: Any, batch: Batch) -> Tensor:
    return F.cross_entropy(outputs, batch.targets)


def two_layers() -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    return model, torch.randn(10, 4, dtype=torch.float64), torch.randint(0, 3, (10,))


def by_hand(weights: list[Tensor], biases: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    hidden = torch.tanh(x @ weights[0].mT + biases[0])
    logits = hidden @ weights[1].mT + biases[1]
    return -torch.log_softmax(logits, 1)[torch.arange(len(y)), y].mean()


def differences(model: nn.Sequential, x: Tensor, y: Tensor) -> list[np.ndarray[Any, Any]]:
    """Gradients by central differences."""
    weights, biases = [model[i].weight.detach().clone() for i in (0, 2)], [model[i].bias.detach() for i in (0, 2)]  # type: ignore[union-attr, operator]
    found = []
    for weight in weights:
        slope = np.zeros(weight.shape)
        for index in np.ndindex(*weight.shape):
            kept, ends = float(weight[index]), []
            for step in (1e-6, -1e-6):
                weight[index] = kept + step
                ends.append(float(by_hand(weights, biases, x, y)))
            weight[index] = kept
            slope[index] = (ends[0] - ends[1]) / 2e-6
        found.append(slope)
    return found


def test_the_norm_of_gradients_and_snip_agree_with_finite_differences() -> None:
    model, x, y = two_layers()
    slopes = differences(model, x, y)
    network = ProxyNetwork(model, Batch(x, y), loss)
    assert PROXIES.get("grad_norm")(network) == pytest.approx(sum(np.linalg.norm(s) for s in slopes), rel=1e-6)
    weights = [model[i].weight.detach().numpy() for i in (0, 2)]  # type: ignore[union-attr, operator]
    expected = sum(np.abs(w * s).sum() for w, s in zip(weights, slopes, strict=True))
    assert PROXIES.get("snip")(network) == pytest.approx(expected, rel=1e-6)


def test_grasp_agrees_with_the_explicit_hessian() -> None:
    model, x, y = two_layers()
    shapes, biases = [(6, 4), (3, 6)], [model[i].bias.detach() for i in (0, 2)]  # type: ignore[union-attr, operator]
    flat = torch.cat([model[i].weight.detach().flatten() for i in (0, 2)])  # type: ignore[union-attr, operator]

    def of_flat(values: Tensor) -> Tensor:
        first, second = values.split([24, 18])
        return by_hand([first.view(shapes[0]), second.view(shapes[1])], biases, x, y)

    hessian = torch.autograd.functional.hessian(of_flat, flat)
    (slope,) = torch.autograd.functional.jacobian(of_flat, (flat,))
    expected = -float(flat @ (hessian @ slope))
    assert PROXIES.get("grasp")(ProxyNetwork(model, Batch(x, y), loss)) == pytest.approx(expected, rel=1e-8)


def test_fisher_agrees_with_activations_and_their_gradients_written_out() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)).double()
    x, y = torch.randn(5, 2, 5, 5, dtype=torch.float64), torch.randint(0, 4, (5,))
    maps = F.conv2d(x, model[0].weight, model[0].bias).requires_grad_()  # type: ignore[arg-type, union-attr]
    logits = F.linear(maps.relu().flatten(1), model[3].weight, model[3].bias)  # type: ignore[arg-type, union-attr]
    of_maps, of_logits = torch.autograd.grad(F.cross_entropy(logits, y), [maps, logits])
    a, g = maps.detach().numpy(), of_maps.numpy()
    expected = (((a * g).sum((2, 3)) ** 2).mean(0) / 2).sum()
    expected += (((logits.detach() * of_logits).numpy() ** 2).mean(0) / 2).sum()
    assert PROXIES.get("fisher")(ProxyNetwork(model, Batch(x, y), loss)) == pytest.approx(expected, rel=1e-9)


def test_synaptic_flow_of_a_chain_is_the_product_of_its_absolute_matrices_once_for_each_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in ((4, 5), (5, 6), (6, 3))))
    flow = np.ones(4)
    for layer in model:
        flow = np.abs(layer.weight.detach().numpy()) @ flow  # type: ignore[union-attr, operator]
    given = ProxyNetwork(model, Batch(torch.randn(2, 4)))
    before = copy.deepcopy(model.state_dict())
    assert PROXIES.get("synflow")(given) == pytest.approx(math.log(3 * flow.sum()), rel=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_naswot_is_the_log_determinant_of_agreeing_units() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 2))
    x = torch.randn(8, 4)
    codes = []
    value = x.numpy()
    for index in (0, 2):
        layer = model[index]
        value = np.maximum(value @ layer.weight.detach().numpy().T + layer.bias.detach().numpy(), 0)  # type: ignore[union-attr, operator]
        codes.append(value > 0)
    code = np.concatenate(codes, axis=1)
    kernel = np.array([[np.sum(a == b) for b in code] for a in code], dtype=float)
    expected = np.linalg.slogdet(kernel)[1]
    assert PROXIES.get("naswot")(ProxyNetwork(model, Batch(x))) == pytest.approx(expected, rel=1e-9)


def test_naswot_needs_units_that_switch() -> None:
    with pytest.raises(EvaluationError, match="naswot needs units that are on or off"):
        PROXIES.get("naswot")(ProxyNetwork(nn.Linear(3, 2), Batch(torch.randn(4, 3))))


def test_zen_of_a_linear_network_is_the_size_of_the_change_that_normal_weights_make() -> None:
    """The mean norm of αWε for (200, 300) normal W and ε is α √(200 · 300), up to a thousandth."""
    torch.manual_seed(0)
    given = ProxyNetwork(nn.Linear(300, 200), Batch(torch.randn(64, 300)))
    assert PROXIES.get("zen")(given, size=0.1) == pytest.approx(math.log(0.1 * math.sqrt(200 * 300)), abs=0.03)


def test_zen_adds_the_spread_that_batch_norms_divide_by() -> None:
    """A batch norm divides by √(200 · 1) here, which the sum of logarithms gives back."""
    scores = []
    for norm in ([], [nn.BatchNorm1d(100)]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(200, 100), *norm).train()
        scores.append(PROXIES.get("zen")(ProxyNetwork(model, Batch(torch.randn(256, 200))), size=0.1))
    assert scores[1] == pytest.approx(scores[0], abs=0.02)


def test_the_closed_form_of_spectral_capacity_is_the_integral_and_the_mean_over_drawn_matrices() -> None:
    rng = np.random.default_rng(0)
    for rows, columns in ((40, 200), (150, 150), (300, 20)):
        small, large, variance = min(rows, columns), max(rows, columns), 2 / (rows + columns)
        ratio = small / large
        low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2

        def density(x: float, ratio: float = ratio, low: float = low, high: float = high) -> float:
            return math.sqrt(max((high - x) * (x - low), 0.0)) / (2 * math.pi * ratio * x) if x > 0 else 0.0

        integral = (
            small * quad(lambda x, d=density, s=large * variance: math.log(1 + s * x) * d(x), low, high, limit=400)[0]
        )
        found = capacity(np.array([rows]), np.array([columns]), np.array([variance]))[0]
        assert found == pytest.approx(integral, rel=1e-5)
        drawn = rng.normal(size=(rows, columns)) * math.sqrt(variance)
        assert found == pytest.approx(np.linalg.slogdet(np.eye(columns) + drawn.T @ drawn)[1], rel=0.02)


def test_spectral_capacity_ranks_flexibert_as_published() -> None:
    """Zhu et al. 2026, arXiv 2609.23087: Kendall's tau 0.695 with GLUE over 500 encoders; weights as in their code."""
    place = Path(os.environ.get("AUTOPRUNE_DATA", "")) / ".." / "flexibert" / "BERT_benchmark.json"
    if not place.is_file():
        pytest.skip("needs flexibert/BERT_benchmark.json beside AUTOPRUNE_DATA")
    encoders = json.loads(place.read_text())
    scores = []
    for encoder in encoders:
        given = encoder["hparams"]["model_hparam_overrides"]
        hidden, sizes = given["hidden_size"], []
        for layer in given["nas_config"]["encoder_layers"]:
            attention = {"SA": [(3, 1), (1, 1)], "LT": [(1, 1)] * 2, "DSC": [(1, 1)]}[layer["operation_type"]]
            sizes += [(hidden * a, hidden * b) for a, b in attention]
            inner = layer["feed_forward_dimension"] // layer["num_feed_forward"]
            sizes += [(inner, hidden), (hidden, inner)] * layer["num_feed_forward"]
        m, n = np.array(sizes, dtype=float).T
        scores.append(capacity(m, n, 2 / (m + n)).sum())
    assert kendalltau(scores, [encoder["scores"]["glue"] for encoder in encoders])[0] == pytest.approx(0.695, abs=0.001)


def mobile_space() -> tuple[nn.Module, SearchSpace]:
    model = build_model("mobilenetv2", {"in_channels": 1, "width": 0.25}).eval()
    return model, trace(model, torch.randn(2, 1, 28, 28)).space


def test_proxies_of_shapes_are_those_of_the_weights_that_a_cut_network_has() -> None:
    model, space = mobile_space()
    rows = np.array([space.full, space.uniform(0.5), space.smallest])
    slicer = Slicer(model, space, tuple(np.arange(group.width) for group in space.groups))
    for widths, wide, spectral in zip(
        rows, PROXIES.get("log_width")(space)(rows), PROXIES.get("nsc")(space)(rows), strict=True
    ):
        cut = slicer(tuple(int(w) for w in widths))
        weights = [m.weight for m in cut.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert wide == pytest.approx(sum(math.log(len(w)) for w in weights))
        sizes = np.array([(len(w), w[0].numel()) for w in weights], dtype=float)
        assert spectral == pytest.approx(capacity(*sizes.T, 2 / sizes.sum(1)).sum())


def test_a_block_that_is_left_out_counts_nothing() -> None:
    model = build_model("resnet20", {"width": 0.5}).eval()
    space = trace(model, torch.randn(2, 3, 32, 32), options=SpaceOptions(blocks=True)).space
    switch, block = next(iter(space.presence.blocks.items()))
    without = list(space.full)
    without[switch] = 0
    rows = np.array([space.full, without])
    for name in OF_SHAPES:
        all_of_them, fewer = PROXIES.get(name)(space)(rows)
        assert 0 < fewer < all_of_them
    lost = [m.weight for m in model.get_submodule(block.name).modules() if isinstance(m, nn.Conv2d)]
    whole, rest = PROXIES.get("log_width")(space)(rows)
    assert whole - rest == pytest.approx(sum(math.log(len(w)) for w in lost))


@pytest.mark.parametrize("name", OF_NETWORKS)
def test_both_forms_of_a_network_have_one_score_and_the_seed_decides(name: str) -> None:
    torch.manual_seed(0)
    model = build_model("resnet20", {"width": 0.25}).train()
    x, y = torch.randn(6, 3, 16, 16), torch.randint(0, 10, (6,))
    traced = trace(model.eval(), x[:2])
    graph = graph_network(model, traced.program, traced.space, traced.example)
    scores = []
    for network in (model, model, graph):
        own = copy.deepcopy(network).train()
        torch.manual_seed(1)
        scores.append(PROXIES.get(name)(ProxyNetwork(own, Batch(x, y), loss)))
    assert all(math.isfinite(score) for score in scores)
    assert scores[0] == scores[1]
    assert scores[2] == pytest.approx(scores[0], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "settings"), [("zen", {"size": 0.0}), ("zen", {"repeats": 0}), ("nsc", {"init": "he"})]
)
def test_settings_out_of_range_are_refused_by_name(name: str, settings: dict[str, Any]) -> None:
    given: Any = mobile_space()[1] if name == "nsc" else ProxyNetwork(nn.Linear(2, 2), Batch(torch.randn(2, 2)))
    with pytest.raises(ConfigError, match=f"{name}: "):
        PROXIES.get(name)(given, **settings)


def test_synaptic_flow_does_not_cancel_out_in_front_of_a_norm_over_channels() -> None:
    """A layer norm takes no notice of the scale of what it reads, so signed products in front of it sum to 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 3)).double()
    first, norm, last = ({name: v.detach().abs() for name, v in layer.named_parameters()} for layer in model)

    def flow(w: Tensor, v: Tensor) -> Tensor:
        hidden = w.sum(1) + first["bias"]
        centred = hidden - hidden.mean()
        normed = centred / (centred.square().mean() + 1e-5).sqrt() * norm["weight"] + norm["bias"]
        return (v @ normed + last["bias"]).sum()

    slopes = torch.autograd.functional.jacobian(flow, (first["weight"], last["weight"]))
    products = [w * s for w, s in zip((first["weight"], last["weight"]), slopes, strict=True)]
    found = PROXIES.get("synflow")(ProxyNetwork(model, Batch(torch.randn(2, 5))))
    assert found == pytest.approx(math.log(sum(float(one.abs().sum()) for one in products)), rel=1e-9)
    assert abs(float(products[0].sum())) < 0.05 * float(products[0].abs().sum())


class _Aside(nn.Module):
    """Logits of one axis, and a loss beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.layers(x).squeeze(-1), "aux": x.mean()}


@pytest.mark.parametrize("name", ["zen", "synflow"])
def test_outputs_count_that_have_a_row_for_each_example(name: str) -> None:
    torch.manual_seed(0)
    model, batch = _Aside(), Batch(torch.randn(8, 6))
    scores = []
    for one in (model, model.layers):
        torch.manual_seed(1)
        scores.append(PROXIES.get(name)(ProxyNetwork(copy.deepcopy(one), batch)))
    assert scores[0] == pytest.approx(scores[1])


def test_equal_inputs_count_once_for_naswot_and_nothing_is_said_of_one() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2))
    x = torch.randn(6, 4)
    once = PROXIES.get("naswot")(ProxyNetwork(model, Batch(x)))
    assert PROXIES.get("naswot")(ProxyNetwork(model, Batch(torch.cat([x, x[2:4]])))) == pytest.approx(once)
    with pytest.raises(EvaluationError, match="naswot needs inputs that differ"):
        PROXIES.get("naswot")(ProxyNetwork(model, Batch(x[:1].expand(5, 4))))


def test_zen_keeps_masks_and_refuses_inputs_that_cannot_be_changed_a_little() -> None:
    model = build_model("resnet20", {"width": 0.25}).train()
    options = SpaceOptions(density={"pattern": "unstructured"})
    space = trace(model.eval(), torch.randn(2, 3, 16, 16), options=options).space
    slicer = Slicer(model, space, rank_channels(model, space, "magnitude"))
    scores = []
    for share in (0.05, 0.5, 1.0):
        cut = slicer(space.uniform(share)).train()
        torch.manual_seed(0)
        scores.append(PROXIES.get("zen")(ProxyNetwork(cut, Batch(torch.randn(4, 3, 16, 16)))))
        kept = [float((m.weight != 0).float().mean()) for m in cut.modules() if isinstance(m, nn.Conv2d)]
        assert np.mean(kept) == pytest.approx(share, abs=0.1)
    assert scores[0] < scores[1] < scores[2]
    tokens = Batch(torch.randint(0, 9, (4, 5)))
    with pytest.raises(ConfigError, match=r"zen: it changes inputs a little.*synflow"):
        PROXIES.get("zen")(ProxyNetwork(nn.Embedding(9, 4), tokens))
