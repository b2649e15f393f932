"""Published networks full of idioms: tiny, with random weights, from transformers and PyTorch Geometric."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from coverage_models.catalogue import Entry, Example

_SIZES: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen3": ("Qwen3Config", {"head_dim": 12}),
    "Gemma 3": ("Gemma3TextConfig", {"head_dim": 12, "layer_types": ["full_attention"] * 2}),
    "Phi-3": ("Phi3Config", {"pad_token_id": 0}),
    "Mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Qwen3-MoE": (
        "Qwen3MoeConfig",
        {"head_dim": 12, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    "Mamba": ("MambaConfig", {"hidden_size": 32, "state_size": 8, "time_step_rank": 4}),
}
_RESNET = {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1], "layer_type": "basic"}
_DETECTION: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_queries": 10,
}


def published(source: str) -> list[Entry]:
    """The rows; one whose package is missing is not built, and says so."""
    rows: list[tuple[str, Callable[[], nn.Module], Callable[[], Example]]] = [
        *((name, _causal(*row), lambda: torch.randint(1, 90, (2, 12))) for name, row in _CAUSAL.items()),
        ("T5", _t5, lambda: (torch.randint(1, 90, (2, 12)), torch.randint(1, 90, (2, 7)))),
        ("wav2vec 2.0", _wav2vec, lambda: torch.randn(2, 800)),
        ("DETR", _detr, lambda: torch.randn(2, 3, 64, 64)),
        ("RT-DETR", _rt_detr, lambda: torch.randn(2, 3, 64, 64)),
        ("GAT of PyTorch Geometric", _gat, _graph),
    ]
    return [Entry(source, name, "published", "", _built(make, example)) for name, make, example in rows]


def _built(make: Callable[[], nn.Module], example: Callable[[], Example]) -> Callable[[], tuple[nn.Module, Example]]:
    def build() -> tuple[nn.Module, Example]:
        torch.manual_seed(0)
        return make().eval(), example()

    return build


class _Outputs(nn.Module):
    """A model of transformers that takes tensors by position and gives one of its outputs."""

    def __init__(self, model: nn.Module, inputs: tuple[str, ...], output: str, **options: Any) -> None:
        super().__init__()
        self.model, self.inputs, self.output, self.options = model, inputs, output, options

    def forward(self, *given: Tensor) -> Tensor:
        made = self.model(**dict(zip(self.inputs, given, strict=True)), **self.options)
        output: Tensor = getattr(made, self.output)
        return output


def _causal(config: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        library = importlib.import_module("transformers")
        sizes = {k: v for k, v in _SIZES.items() if config != "MambaConfig" or k in ("vocab_size", "num_hidden_layers")}
        model = library.AutoModelForCausalLM.from_config(getattr(library, config)(**{**sizes, **options}))
        return _Outputs(model, ("input_ids",), "logits", use_cache=False)

    return make


def _t5() -> nn.Module:
    library = importlib.import_module("transformers")
    config = library.T5Config(
        vocab_size=100, d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    model = library.T5ForConditionalGeneration(config)
    return _Outputs(model, ("input_ids", "decoder_input_ids"), "logits", use_cache=False)


def _wav2vec() -> nn.Module:
    library = importlib.import_module("transformers")
    sizes = {k: v for k, v in _SIZES.items() if k not in ("vocab_size", "num_key_value_heads")}
    convolutions = {"conv_dim": (16, 24), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2}
    position = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4}
    model = library.Wav2Vec2ForCTC(library.Wav2Vec2Config(**sizes, **convolutions, **position, vocab_size=20))
    return _Outputs(model, ("input_values",), "logits")


def _detr() -> nn.Module:
    library = importlib.import_module("transformers")
    backbone = library.ResNetConfig(**_RESNET, out_features=["stage4"])
    config = library.DetrConfig(
        **_DETECTION, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone
    )
    return _Outputs(library.DetrForObjectDetection(config), ("pixel_values",), "pred_boxes")


def _rt_detr() -> nn.Module:
    library = importlib.import_module("transformers")
    backbone = library.RTDetrResNetConfig(**_RESNET, out_features=["stage2", "stage3", "stage4"])
    sizes = {k: v for k, v in _DETECTION.items() if k not in ("encoder_attention_heads", "encoder_ffn_dim")}
    config = library.RTDetrConfig(
        **sizes,
        backbone_config=backbone,
        encoder_hidden_dim=32,
        encoder_in_channels=[24, 32, 48],
        encoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_in_channels=[32, 32, 32],
        anchor_image_size=None,
    )
    return _Outputs(library.RTDetrForObjectDetection(config), ("pixel_values",), "logits")


def _graph() -> tuple[Tensor, Tensor]:
    return torch.randn(9, 12), torch.stack([torch.arange(9), (torch.arange(9) * 4 + 1) % 9])


def _gat() -> nn.Module:
    layers = importlib.import_module("torch_geometric.nn")

    class GAT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = layers.GATConv(12, 8, heads=4), layers.GATConv(32, 5)

        def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
            scores: Tensor = self.two(self.one(nodes, edges).relu(), edges)
            return scores

    return GAT()
