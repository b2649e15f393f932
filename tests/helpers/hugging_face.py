"""Tiny networks of transformers, with random weights; who asks for one where the package is missing is skipped."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

_SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_GROUPED: dict[str, Any] = {**_SIZES, "num_key_value_heads": 2, "use_cache": False}
CONFIGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**_GROUPED, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**_GROUPED, "head_dim": 6}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**_GROUPED, "head_dim": 6}),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 61, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 4, "use_cache": False}
        | {"bos_token_id": 0, "eos_token_id": 0},
    ),
    "bert": ("BertForMaskedLM", "BertConfig", {**_SIZES, "max_position_embeddings": 16}),
    "vit": (
        "ViTForImageClassification",
        "ViTConfig",
        {name: value for name, value in _SIZES.items() if name != "vocab_size"} | {"image_size": 8, "patch_size": 4},
    ),
    "whisper": (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {"vocab_size": 61, "d_model": 24, "num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 12}
        | {f"{side}_layers": 1 for side in ("encoder", "decoder")}
        | {f"{side}_attention_heads": 4 for side in ("encoder", "decoder")}
        | {f"{side}_ffn_dim": 48 for side in ("encoder", "decoder")}
        | {"use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
    ),
}


def library() -> Any:
    """The package; skips where it is missing, or cannot be used with what is installed beside it."""
    try:
        import transformers

        transformers.LlamaForCausalLM  # noqa: B018 - imports what it needs, which may be missing
    except ImportError as error:
        pytest.skip(f"needs the package transformers: {error}")
    return transformers


def network(name: str, **changes: Any) -> nn.Module:
    """A network of `CONFIGS` in eval mode, some values of its config others."""
    kind, config, values = CONFIGS[name]
    known = library()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: nn.Module = getattr(known, kind)(getattr(known, config)(**{**values, **changes}))
    return made.eval()


def inputs(name: str) -> dict[str, torch.Tensor]:
    """Two examples."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 61, (2, 9), generator=generator)
    if name == "vit":
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator)}
    if name == "whisper":
        return {"input_features": torch.randn(2, 8, 20, generator=generator), "decoder_input_ids": tokens[:, :5]}
    return {"input_ids": tokens}
