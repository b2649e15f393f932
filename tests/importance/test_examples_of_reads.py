"""Evidence of single examples is that of batches of one, wherever in what a call gets they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.data.batch import Ragged
from autoprune.errors import ConfigError
from autoprune.importance.evidence import Calibration
from autoprune.importance.examples import first_examples
from autoprune.importance.members import channel_scores
from autoprune.importance.reading import BatchAxis
from autoprune.space.cutting.graph_form import graph_network
from autoprune.space.tracing.trace import trace

EXAMPLES = 6


class _Attention(nn.Module):
    """Torch's attention reads (time, examples, channels), and projects rows in the order of time."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        logits: Tensor = self.last((hidden + self.attention(hidden, hidden, hidden)[0]).mean(1))
        return logits


@pytest.mark.parametrize("time", [EXAMPLES, 7, 2 * EXAMPLES])
@pytest.mark.parametrize("form", ["module", "graph"])
@pytest.mark.parametrize("criterion", ["fisher", {"name": "taylor_gate", "settings": {"per": "example"}}])
def test_a_batch_gives_what_its_examples_give_one_by_one(time: int, form: str, criterion: Any) -> None:
    torch.manual_seed(0)
    model = _Attention().double().eval()
    x, y = torch.randn(EXAMPLES, time, 5, dtype=torch.float64), torch.arange(EXAMPLES) % 3
    traced = trace(model, x[:2])
    network: nn.Module = model
    if form == "graph":
        network = graph_network(model, traced.program, traced.space, traced.example)

    def scores(batches: list[tuple[Tensor, Tensor]]) -> list[Any]:
        return channel_scores(
            network, traced.space, criterion, calibration=Calibration(batches, F.cross_entropy), seed=0
        )

    together = scores([(x, y)])
    each = [scores([(x[i : i + 1], y[i : i + 1])]) for i in range(EXAMPLES)]
    for place, found in enumerate(together):
        expected = np.mean([one[place] for one in each], axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=traced.space.groups[place].name)


def test_the_axis_of_examples_is_told_by_values_where_sizes_do_not_tell() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 3, 4)  # examples, time, channels
    assert BatchAxis.found(x, x[:1], 2) == BatchAxis(0)
    assert BatchAxis.found(x.transpose(0, 1), x[:1].transpose(0, 1), 2) == BatchAxis(1)
    assert BatchAxis.found(x.flatten(0, 1), x[:1].flatten(0, 1), 1) == BatchAxis(0)
    by_time = x.transpose(0, 1).flatten(0, 1)
    assert BatchAxis.found(by_time, x[0], 1) == BatchAxis(0, strided=True)
    assert BatchAxis.found(x, torch.randn(1, 3, 4), 2) is None
    assert BatchAxis.found(x, x, 2) is None


def test_lists_of_examples_are_cut_with_them() -> None:
    boxes = Ragged(torch.randn(n, 4) for n in (1, 2, 8, 3, 1, 2, 8, 4))
    stacked = first_examples((torch.randn(8, 3, 5, 5), boxes), 5)
    assert (stacked.number, len(stacked.inputs)) == (5, 5)
    assert [len(one) for one in stacked.targets] == [1, 2, 8, 3, 1]
    images = Ragged(torch.randn(3, 5 + n, 6) for n in range(8))
    listed = first_examples(((images,), boxes), 3)
    assert first_examples(((images,), boxes), None).number == 8
    assert [tuple(one.shape) for one in listed.inputs[0]] == [(3, 5, 6), (3, 6, 6), (3, 7, 6)]
    assert len(listed.targets) == 3


class _WithLoss(nn.Module):
    """Gives its own loss, one number for the batch, beside its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.b(self.a(x).relu())
        return {"loss": logits.square().mean(), "logits": logits}


def test_outputs_that_are_one_for_the_batch_are_not_shared_by_rows_of_gates() -> None:
    torch.manual_seed(0)
    model, x = _WithLoss().eval(), torch.randn(5, 4)
    space = trace(model, x[:2]).space
    (found,) = channel_scores(
        model, space, "ablation", calibration=Calibration([(x, None)], lambda outputs, _: outputs["loss"])
    )
    hidden = model.a(x).relu()
    whole = model.b(hidden).square().mean()
    expected = []
    for channel in range(8):
        without = hidden.clone()
        without[:, channel] = 0
        expected.append(abs(float((model.b(without).square().mean() - whole).detach())))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_predictions_of_tokens_are_those_over_the_vocabulary() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 11)).eval()
    tokens = torch.randint(0, 11, (4, 5))
    space = trace(model, tokens[:2]).space
    place = next(i for i, group in enumerate(space.groups) if group.width == 8)
    sensitivity = {"name": "sensitivity", "settings": {"counts": "flips"}}
    found = channel_scores(model, space, sensitivity, calibration=Calibration([(tokens, None)]))[place]
    hidden = model[2](model[1](model[0](tokens)))
    plain = model[3](hidden).argmax(-1)
    expected = []
    for channel in range(8):
        without = hidden.clone()
        without[..., channel] = 0
        expected.append(float((model[3](without).argmax(-1) != plain).double().mean()))
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert max(expected) > 0


def test_a_control_needs_other_examples() -> None:
    model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval(), torch.randn(4, 4)
    space = trace(model, x[:2]).space
    batches = [(x[i : i + 1], torch.tensor([i % 2])) for i in range(4)]
    pairs = [(x[i : i + 2], torch.tensor([0, 1])) for i in (0, 2)]
    found, expected = (
        channel_scores(model, space, "scop", calibration=Calibration(b, F.cross_entropy))[0] for b in (batches, pairs)
    )
    np.testing.assert_allclose(found, expected)
    assert found.max() > 0
    with pytest.raises(ConfigError, match="there is one only: give more"):
        channel_scores(model, space, "scop", calibration=Calibration(batches[:1], F.cross_entropy))


def test_batches_from_a_generator_serve_criteria_that_go_through_them_twice() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval(), torch.randn(32, 4)
    space = trace(model, x[:2]).space
    listed, drawn = [(x, None)], ((one, None) for one in [x])
    expected, found = (channel_scores(model, space, "thinet", calibration=Calibration(b)) for b in (listed, drawn))
    np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize(("dtype", "scale"), [(torch.bfloat16, 1.0), (torch.float16, 1e-4)])
@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_sums_over_weights_of_half_precision_are_not_rounded(dtype: torch.dtype, scale: float, criterion: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 2)).eval()
    with torch.no_grad():
        model[0].weight.mul_(scale)  # type: ignore[operator, union-attr]
    space = trace(model, torch.randn(2, 64)).space
    weights = model.to(dtype)[0]
    (found,) = channel_scores(model, space, criterion)
    rows = torch.cat([weights.weight, weights.bias[:, None]], dim=1).detach().double().numpy()  # type: ignore[union-attr, list-item, index]
    expected = np.abs(rows).sum(1) if criterion == "l1" else np.sqrt((rows**2).sum(1))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
