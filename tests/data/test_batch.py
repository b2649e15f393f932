from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.errors import DataError


class _Sum(nn.Module):
    def forward(self, a: Tensor, b: Tensor | None = None) -> Tensor:
        return a if b is None else a + 2 * b


ONE, TWO = torch.ones(3, 2), torch.full((3, 2), 2.0)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [(ONE, 1.0), ((ONE, TWO), 5.0), ([ONE, TWO], 5.0), ({"b": ONE, "a": TWO}, 4.0)],
    ids=["tensor", "positional", "list", "keywords"],
)
def test_inputs_of_any_nesting_reach_the_network(inputs: object, expected: float) -> None:
    batch = Batch(inputs, torch.zeros(3))
    assert len(batch) == 3
    assert torch.equal(batch.outputs(_Sum()), torch.full((3, 2), expected))


def test_it_moves_as_a_whole_and_is_not_changed() -> None:
    batch = Batch({"a": ONE, "name": "x"}, [TWO, None])
    moved = batch.to("meta")
    assert moved.inputs["a"].device.type == moved.targets[0].device.type == "meta"
    assert moved.inputs["name"] == "x"
    assert moved.targets[1] is None
    assert batch.inputs["a"].device.type == "cpu"


def test_a_batch_without_a_tensor_has_no_length() -> None:
    with pytest.raises(DataError, match="it holds none"):
        len(Batch({"name": "x"}))
