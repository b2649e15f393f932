"""Networks of transformers are cut as their own class: heads with their queries, MLPs, embeddings, whole layers."""

from __future__ import annotations

import hugging_face
import pytest
import torch

from autoprune.config.space import SpaceOptions
from autoprune.space.cutting.slicing import slice_model
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify

HEADS = {"llama": 2, "qwen3": 2, "gemma3": 2, "gpt2": 4, "bert": 4, "vit": 4, "whisper": 4}
FAST = ("llama", "gpt2")


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in HEADS])
def test_heads_mlps_embedding_and_layers_can_go(name: str) -> None:
    model, inputs = hugging_face.network(name), hugging_face.inputs(name)
    found = verify(model, trace(model, inputs, options=SpaceOptions(blocks=True)))
    space = found.space
    assert space.form == "module", space.why_graph
    assert {group.width for group in space.groups if group.kind == "heads"} == {HEADS[name]}
    assert sum(group.kind == "blocks" for group in space.groups) == 2
    inner = [group for group in space.groups if group.kind == "channels" and not group.residual and group.width > 40]
    assert len(inner) == 2
    assert any(group.residual and group.width == 24 for group in space.groups)
    widths = tuple(group.width if group.kind == "blocks" else (group.width + 1) // 2 for group in space.groups)
    ranking = tuple(torch.arange(group.slots).numpy() for group in space.groups)
    cut = slice_model(model, space, widths, ranking)
    shorter = {key: value[:, :-1] if value.dtype == torch.int64 else value for key, value in inputs.items()}
    assert cut(**shorter).logits.shape == model(**shorter).logits.shape


def test_what_an_encoder_returns_keeps_its_width_and_says_why() -> None:
    model, inputs = hugging_face.network("whisper"), hugging_face.inputs("whisper")
    space = trace(model, inputs).space
    reasons = {part.name: part.reason for part in space.frozen}
    assert reasons["model.encoder.layers.0.fc2"] == "the model's output"
