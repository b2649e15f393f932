"""The models of the benchmark, with random weights and small inputs, each built when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from coverage_models import vision_operators
from coverage_models.plain import LSTMClassifier, UNet
from coverage_models.timm_list import timm_models

Example: TypeAlias = Tensor | tuple[Any, ...] | Mapping[str, Any]

PRELOAD = ("torchvision", "timm")
"""Imported once, before a process is forked for every model."""


@dataclass(frozen=True)
class Entry:
    """A model of the list.

    Attributes:
        source: the library it comes from.
        name: its name there.
        family: what it is a variant of.
        size: its input, for a person.
        build: makes the model in evaluation mode, and its example input.
        heavy: whether it needs so much memory that only one such model is measured at a time.
    """

    source: str
    name: str
    family: str
    size: str
    build: Callable[[], tuple[nn.Module, Example]]
    heavy: bool = False

    @property
    def label(self) -> str:
        """A name that no other entry has."""
        return f"{self.source}/{self.name}"


def catalogue() -> list[Entry]:
    """All models, by source; the heaviest kinds are spread so that two of them seldom meet."""
    return [*_torchvision(), *_torchvision_dense(), *_ultralytics(), *_hugging_face(), *_plain(), *_timm()]


def _entry(
    source: str,
    name: str,
    family: str,
    size: str,
    make: Callable[[], nn.Module],
    example: Callable[[], Example],
    *,
    heavy: bool = False,
) -> Entry:
    def build() -> tuple[nn.Module, Example]:
        torch.manual_seed(0)
        return make().eval(), example()

    return Entry(source, name, family, size, build, heavy)


def _image(pixels: int) -> Callable[[], Tensor]:
    return partial(torch.randn, 1, 3, pixels, pixels)


def _list_of_images(pixels: int) -> Callable[[], tuple[list[Tensor]]]:
    return lambda: ([torch.rand(3, pixels, pixels)],)


def _pixel_values() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(1, 3, 64, 64)}


def _tokens(words: int, length: int) -> Callable[[], dict[str, Tensor]]:
    return lambda: {
        "input_ids": torch.randint(1, words, (1, length)),
        "attention_mask": torch.ones(1, length, dtype=torch.long),
    }


def _torchvision() -> list[Entry]:
    """Every classification model that torchvision lists."""
    models = importlib.import_module("torchvision.models")
    sizes = {"inception_v3": 128, "maxvit_t": 224, "vit_h_14": 98}
    heavy = {"regnet_y_128gf", "vit_h_14", "vit_l_16", "vit_l_32", "convnext_large"}
    entries = []
    for name in models.list_models(module=models):
        size = sizes.get(name, 96)
        options: dict[str, Any] = {"weights": None}
        if name.startswith("vit_"):
            options["image_size"] = size
        if name in ("inception_v3", "googlenet"):
            options["init_weights"] = False
        make = partial(models.get_model, name, **options)
        entries.append(
            _entry("torchvision", name, name.split("_")[0], f"{size} px", make, _image(size), heavy=name in heavy)
        )
    return entries


def _torchvision_dense() -> list[Entry]:
    """Segmentation, and detection with boxes drawn from random scores (an empty list would test nothing)."""
    dense = importlib.import_module("torchvision.models.segmentation")
    boxes = importlib.import_module("torchvision.models.detection")
    few = {"min_size": 128, "max_size": 128}
    one_stage = {"score_thresh": 0.0, "topk_candidates": 20, "detections_per_img": 10}
    two_stage = {"box_score_thresh": 0.0, "rpn_pre_nms_top_n_test": 40, "rpn_post_nms_top_n_test": 16}
    listed: list[tuple[Any, str, int, dict[str, Any]]] = [
        (dense, "fcn_resnet50", 96, {}),
        (dense, "deeplabv3_mobilenet_v3_large", 96, {}),
        (dense, "lraspp_mobilenet_v3_large", 96, {}),
        (boxes, "fasterrcnn_mobilenet_v3_large_fpn", 128, few | two_stage | {"box_detections_per_img": 10}),
        (boxes, "retinanet_resnet50_fpn", 128, few | one_stage),
        (boxes, "fcos_resnet50_fpn", 128, few | one_stage),
        (boxes, "ssdlite320_mobilenet_v3_large", 320, one_stage),
    ]
    entries = []
    for module, name, size, options in listed:
        make = partial(getattr(module, name), weights=None, weights_backbone=None, **options)
        task = "segmentation" if module is dense else "detection"
        example = _image(size) if module is dense else _list_of_images(size)
        entries.append(_entry(f"torchvision {task}", name, task, f"{size} px", make, example))
    return entries


def _timm() -> list[Entry]:
    create = importlib.import_module("timm").create_model
    entries = []
    for family, name, size, tell in timm_models():
        options = {"img_size": size} if tell else {}
        make = partial(create, name, pretrained=False, **options)
        entries.append(_entry("timm", name, family, f"{size} px", make, _image(size)))
    return entries


def _ultralytics() -> list[Entry]:
    def yolo(file: str) -> Callable[[], nn.Module]:
        def make() -> nn.Module:  # imported late: it takes seconds
            return importlib.import_module("ultralytics.nn.tasks").DetectionModel(file, verbose=False)

        return make

    return [
        _entry("ultralytics", file.removesuffix(".yaml"), "yolo", "128 px", yolo(file), _image(128))
        for file in ("yolov8n.yaml", "yolo11n.yaml")
    ]


def _hugging_face() -> list[Entry]:
    text: dict[str, Any] = {"vocab_size": 1000, "num_labels": 5}
    plain = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 160}
    gpt2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "use_cache": False, "pad_token_id": 0}
    llama = plain | {"num_key_value_heads": 2, "use_cache": False, "pad_token_id": 0}

    def small(config: str, model: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
        def make() -> nn.Module:
            library = importlib.import_module("transformers")
            return getattr(library, model)(getattr(library, config)(**options))

        return make

    tokens = _tokens(1000, 24)
    return [
        _entry("Hugging Face", model, family, size, small(config, model, options), example)
        for family, config, model, options, size, example in (
            ("BERT", "BertConfig", "BertForSequenceClassification", text | plain, "24 tokens", tokens),
            ("GPT-2", "GPT2Config", "GPT2ForSequenceClassification", text | gpt2, "24 tokens", tokens),
            ("GPT-2", "GPT2Config", "GPT2LMHeadModel", text | gpt2, "24 tokens", tokens),
            ("ViT", "ViTConfig", "ViTForImageClassification", plain | {"image_size": 64}, "64 px", _pixel_values),
            ("Llama", "LlamaConfig", "LlamaForSequenceClassification", text | llama, "24 tokens", tokens),
            ("Llama", "LlamaConfig", "LlamaForCausalLM", text | llama, "24 tokens", tokens),
        )
    ]


def _plain() -> list[Entry]:
    return [
        _entry("plain torch", "UNet", "U-Net", "64 px", UNet, _image(64)),
        _entry(
            "plain torch",
            "LSTMClassifier",
            "LSTM",
            "12 tokens",
            LSTMClassifier,
            partial(torch.randint, 0, 1000, (1, 12)),
        ),
    ]


def operators_note() -> str:
    """What the reader must know of torchvision's operators in this run."""
    if vision_operators.COMPILED:
        return "torchvision ran with its own compiled operators."
    return "torchvision's compiled operators do not fit this torch: nms and roi_align were plain stand-ins."
