"""Which module made a call, where forward takes modules out of a sliced container."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from nets import conv
from torch import Tensor, nn

from autoprune.space.tracing.module_paths import real_path
from autoprune.space.tracing.program import record
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify


class Blocks(nn.Module):
    """Blocks that share one activation, which makes the exporter name what a slice holds by the slice."""

    def __init__(self, container: Callable[[Sequence[nn.Module]], Any], chosen: Callable[[Any], Any]) -> None:
        super().__init__()
        act, self.chosen = nn.SiLU(), chosen
        parts = [nn.Sequential(conv(i, o), act, nn.Dropout(0.2)) for i, o in ((3, 16), (16, 12), (12, 8))]
        self.blocks = container([*parts, nn.Linear(8 * 36, 5)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.chosen(self.blocks):
            x = block(x)
        return self.blocks[-1](x.view(-1, 8 * 36))  # type: ignore[no-any-return]


CHOSEN: dict[str, Callable[[Any], Any]] = {
    "a slice": lambda blocks: blocks[:-1],
    "two slices": lambda blocks: [*blocks[:1], *blocks[1:-1]],
    "a slice of a slice": lambda blocks: [blocks[0], *blocks[1:][:2]],
    "children": lambda blocks: list(blocks.children())[:-1],
}


@pytest.mark.parametrize("container", [lambda parts: nn.Sequential(*parts), nn.ModuleList])
@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN)
def test_every_call_names_a_module_of_the_model(container: Any, chosen: Any) -> None:
    model = Blocks(container, chosen)
    known = dict(model.named_modules(remove_duplicate=False))
    for node in record(model, torch.randn(2, 3, 6, 6)).nodes:
        for path, kind in (node.meta.get("nn_module_stack") or {}).values():
            assert str(kind).endswith(type(known[path]).__name__)


def test_a_graph_over_a_sliced_container_is_cut_and_switches_its_dropout() -> None:
    model = Blocks(nn.ModuleList, CHOSEN["a slice"])
    verified = verify(model, trace(model, torch.randn(2, 3, 6, 6)))
    assert (verified.space.form, verified.space.notes) == ("graph", ())
    assert [g.width for g in verified.space.groups] == [16, 12, 8]


def test_a_path_that_leads_nowhere_is_followed_as_far_as_it_goes() -> None:
    model = Blocks(nn.ModuleList, CHOSEN["a slice"])
    assert real_path(model, "blocks.slice(1, None, None).0.2") == "blocks.1.2"
    assert real_path(model, "blocks.slice(7, None, None).0.2") == "blocks"
    assert real_path(model, "") == real_path(model, "other.0") == ""
