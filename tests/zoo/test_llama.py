"""The small Llama computes what the one of transformers does, and can be cut in all its widths."""

from __future__ import annotations

import hugging_face
import pytest
import torch

from autoprune.errors import ConfigError
from autoprune.space.cutting.slicing import slice_model
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.zoo import build_model
from autoprune.zoo.llama import Llama

TINY = {"vocabulary": 61, "width": 24, "layers": 2, "heads": 4, "key_value_heads": 2, "hidden": 48, "context": 16}
TOKENS = torch.randint(61, (3, 16), generator=torch.Generator().manual_seed(0))


def tiny(**changes: int) -> Llama:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = build_model("char_llama", {**TINY, **changes}).eval()
    assert isinstance(made, Llama)
    return made


def test_it_has_the_size_that_its_table_says() -> None:
    block = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 352 + 2 * 128
    found = sum(weight.numel() for weight in build_model("char_llama").parameters())
    assert found == 256 * 128 + 6 * block + 128 == 1_140_352


def test_it_computes_what_the_llama_of_transformers_does() -> None:
    ours, theirs = tiny(), hugging_face.network("llama", rms_norm_eps=1e-5)
    names = {"embedding": "model.embed_tokens", "norm": "model.norm", "blocks": "model.layers", "output": "lm_head"}
    inner = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm", "attention": "self_attn"}

    def theirs_of(name: str) -> str:
        first, _, rest = name.partition(".")
        parts = [inner.get(part, part) for part in rest.split(".")]
        return ".".join((names[first], *parts))

    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
        theirs.load_state_dict({theirs_of(name): tensor for name, tensor in ours.state_dict().items()})
        torch.testing.assert_close(ours(TOKENS), theirs(TOKENS).logits, rtol=1e-4, atol=1e-5)


def test_no_token_sees_a_later_one() -> None:
    other = TOKENS.clone()
    other[:, 9:] = (other[:, 9:] + 1) % 61
    with torch.no_grad():
        one, two = tiny()(TOKENS), tiny()(other)
    assert torch.equal(one[:, :9], two[:, :9])
    assert not torch.allclose(one[:, 9:], two[:, 9:])


def test_embedding_and_output_are_one_matrix_also_after_new_weights() -> None:
    network = tiny()
    network.reset_parameters()
    assert network.output.weight is network.embedding.weight


def test_heads_with_their_queries_mlps_and_the_embedding_can_be_cut() -> None:
    network = tiny()
    found = verify(network, trace(network, TOKENS[:2]))
    kinds = {group.name: (group.kind, group.width) for group in found.space.groups}
    assert kinds == {
        "output": ("channels", 24),
        **{f"blocks.{n}.attention.q_proj": ("heads", 2) for n in range(2)},
        **{f"blocks.{n}.mlp.gate_proj": ("channels", 48) for n in range(2)},
    }
    assert found.space.form == "module"
    widths = tuple(group.width // 2 for group in found.space.groups)
    half = slice_model(network, found.space, widths, tuple(torch.arange(g.slots).numpy() for g in found.space.groups))
    assert half.blocks[0].attention.q_proj.weight.shape == (12, 12)
    assert half.blocks[0].attention.k_proj.weight.shape == (6, 12)
    assert half(TOKENS[:, :7]).shape == (3, 7, 61)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key_value_heads": 3}, "key_value_heads must divide heads, got 3 and 4"),
        ({"head_width": 5}, "^head_width must be even, got 5"),
        ({"hidden": 0}, "hidden must be a whole number of at least 1, got 0"),
    ],
)
def test_sizes_that_do_not_fit_are_one_clear_error(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**changes)
