"""Networks of torchvision, timm and transformers, cut at random: every format, and where no library is installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from run_alone import run_alone
from torch import nn

from autoprune.export.writing import exporters, write_formats
from autoprune.randomness import seeded
from autoprune.testing.exporters import cut_at_random

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
FORMATS = ["torch_export", "module", *(["onnx"] if ONNX else [])]
IMAGES, TOKENS = (1, 3, 32, 32), (2, 8)


def torchvision(name: str, **arguments: Any) -> nn.Module:
    made: nn.Module = getattr(importlib.import_module("torchvision.models"), name)(**arguments)
    return made


def torchvision_convnext() -> nn.Module:
    module = importlib.import_module("torchvision.models.convnext")
    made: nn.Module = module.ConvNeXt([module.CNBlockConfig(8, 16, 1), module.CNBlockConfig(16, 32, 1)], num_classes=10)
    return made


def timm(name: str, **arguments: Any) -> nn.Module:
    made: nn.Module = importlib.import_module("timm").create_model(name, num_classes=10, **arguments)
    return made


def transformers(kind: str, name: str, **arguments: Any) -> nn.Module:
    library = importlib.import_module("transformers")
    made: nn.Module = getattr(library, name)(getattr(library, f"{kind}Config")(**arguments))
    return made


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
VIT = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "torchvision ViT": lambda: torchvision("VisionTransformer", num_classes=10, **VIT),
    "torchvision ConvNeXt": torchvision_convnext,
    "torchvision ResNet": lambda: torchvision("resnet18", num_classes=10),
    "torchvision ShuffleNet": lambda: torchvision("shufflenet_v2_x0_5", num_classes=10),
    "torchvision MobileNetV3": lambda: torchvision("mobilenet_v3_small", num_classes=10),
    "torchvision Swin": lambda: torchvision(
        "SwinTransformer",
        patch_size=[4, 4],
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
        num_classes=10,
    ),
    "timm ViT": lambda: timm("vit_tiny_patch16_224", img_size=32, embed_dim=32, depth=2, num_heads=4),
    "timm ConvNeXt": lambda: timm("convnext_atto", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)),
    "transformers BERT": lambda: transformers(
        "Bert", "BertForSequenceClassification", vocab_size=50, max_position_embeddings=16, **SMALL
    ),
    "transformers GPT-2": lambda: transformers(
        "GPT2", "GPT2LMHeadModel", vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=16, use_cache=False
    ),
    "transformers Llama": lambda: transformers(
        "Llama", "LlamaForCausalLM", vocab_size=50, num_key_value_heads=2, use_cache=False, **SMALL
    ),
    "transformers ViT": lambda: transformers("ViT", "ViTForImageClassification", image_size=32, patch_size=8, **SMALL),
}
QUICK = ("torchvision ConvNeXt", "timm ViT", "transformers BERT")
GRID = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NETWORKS]


@pytest.mark.parametrize("name", GRID)
def test_a_network_of_a_library_cut_at_random_runs_where_the_library_is_not(
    name: str, tmp_path: Path, import_torchvision: Callable[[], ModuleType]
) -> None:
    library = name.partition(" ")[0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}, which is not installed")
    import_torchvision()
    with seeded(1):
        images = torch.randn(IMAGES)
        tokens = {"input_ids": torch.randint(0, 50, TOKENS), "attention_mask": torch.ones(TOKENS, dtype=torch.long)}
        example: Any = images
        if library == "transformers":
            example = {"pixel_values": images} if "ViT" in name else tokens
        source = cut_at_random(NETWORKS[name](), example, seed=1)
    said: list[str] = []
    folder = write_formats(source, exporters(FORMATS), tmp_path / "net", note=said.append)
    assert all("outputs are PyTorch's to" in line and "only the batch size" not in line for line in said)
    assert run_alone({folder: source}) == f"{len(FORMATS)} runs alone"
