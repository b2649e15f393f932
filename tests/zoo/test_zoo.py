from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from safetensors.torch import save_file
from torch import nn

from autoprune.errors import ConfigError, RegistryError
from autoprune.zoo import ZOO, build_model, load_weights
from autoprune.zoo.resnet import PadShortcut
from autoprune.zoo.scaling import scaled

NAMES = [name for name in ZOO.names() if name != "char_llama"]  # of images; it has its own tests


def flops(model: nn.Module, *shape: int) -> int:
    counts = FlopCountAnalysis(model.eval(), torch.zeros(shape)).unsupported_ops_warnings(False).by_operator()
    return int(counts["conv"] + counts["linear"] + counts["addmm"])


def params(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


# ---- exact sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("resnet20", {"shortcut": "pad"}, (40_551_040, 269_722)),
        ("resnet56", {}, (125_747_840, 855_770)),
        ("resnet56", {"shortcut": "pad"}, (125_485_696, 853_018)),
        ("resnet110", {"shortcut": "pad"}, (252_887_680, 1_727_962)),
    ],
)
def test_resnets_have_their_published_size(name: str, arguments: dict[str, Any], expected: tuple[int, int]) -> None:
    model = build_model(name, arguments)
    assert (flops(model, 1, 3, 32, 32), params(model)) == expected


def conv(before: int, after: int, kernel: int) -> int:
    """Weights of a convolution and of the batch norm behind it."""
    return before * after * kernel**2 + 2 * after


def by_hand_preresnet() -> int:
    total, before = 3 * 16 * 9, 16
    for inner in (16, 32, 64):
        after = 4 * inner
        total += before * after  # the shortcut, without norm
        for _ in range(18):
            total += 2 * before + conv(before, inner, 1) + conv(inner, inner, 3) + inner * after
            before = after
    return total + 2 * 256 + 2570


def by_hand_vgg(*depths: int) -> int:
    total, before = 0, 3
    for after, depth in zip((64, 128, 256, 512, 512), depths, strict=True):
        total += conv(before, after, 3) + (depth - 1) * conv(after, after, 3)
        before = after
    return total + 5130


def by_hand_mobilenet() -> int:
    total, before = conv(3, 32, 3) + conv(1, 32, 3) + conv(32, 16, 1), 16
    for after, blocks in ((24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1)):
        for _ in range(blocks):
            total += conv(before, 6 * before, 1) + conv(1, 6 * before, 3) + conv(6 * before, after, 1)
            before = after
    return total + conv(320, 1280, 1) + 12_810


def by_hand_densenet() -> int:
    inputs = [16 + 12 * layer for layer in range(36)]  # without compression the transitions keep the count
    transitions = sum(2 * joined + joined**2 for joined in (160, 304))
    return 3 * 16 * 9 + sum(2 * joined + joined * 12 * 9 for joined in inputs) + transitions + 2 * 448 + 4490


@pytest.mark.parametrize(
    ("name", "by_hand", "millions"),
    [
        ("preresnet164", by_hand_preresnet(), 1.70),
        ("vgg16", by_hand_vgg(2, 2, 3, 3, 3), 14.72),
        ("vgg19", by_hand_vgg(2, 2, 4, 4, 4), 20.04),
        ("mobilenetv2", by_hand_mobilenet(), 2.24),
        ("densenet40", by_hand_densenet(), 1.02),
    ],
)
def test_parameters_are_those_counted_by_hand(name: str, by_hand: int, millions: float) -> None:
    assert params(build_model(name)) == by_hand
    assert round(by_hand / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("name", "published"),  # halves of the operations in table 1 of Network Slimming; VGG-16 from HRank, table 1
    [("preresnet164", 4.99e8 / 2), ("vgg16", 313.73e6), ("vgg19", 7.97e8 / 2), ("densenet40", 5.33e8 / 2)],
)
def test_flops_are_the_published_ones_within_one_percent(name: str, published: float) -> None:
    assert flops(build_model(name), 1, 3, 32, 32) == pytest.approx(published, rel=0.01)


# ---- inputs, outputs, widths ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [16, 28, 32])
def test_any_usual_image_gives_finite_logits(name: str, size: int) -> None:
    model = build_model(name, {"in_channels": 1, "classes": 7, "width": 0.25}).eval()
    logits = model(torch.randn(2, 1, size, size))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns_and_every_layer_can_be_initialised_again(name: str) -> None:
    model = build_model(name, {"in_channels": 1, "width": 0.25})
    model(torch.randn(4, 1, 16, 16)).square().sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    owners = [module for module in model.modules() if list(module.parameters(recurse=False))]
    assert all(callable(getattr(owner, "reset_parameters", None)) for owner in owners)


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_can_be_exported_and_computes_the_same(name: str) -> None:
    model = build_model(name, {"width": 0.25}).eval()
    images = torch.randn(1, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(model, (images,), strict=False)
    torch.testing.assert_close(exported.module()(images), model(images))


@pytest.mark.parametrize("name", NAMES)
def test_every_inner_channel_count_follows_the_width(name: str) -> None:
    full, half = build_model(name), build_model(name, {"width": 0.5})
    norms = zip(_norms(full), _norms(half), strict=True)
    assert all(narrow.num_features * 2 == wide.num_features for wide, narrow in norms)


def _norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def test_the_pad_shortcut_only_moves_data() -> None:
    images = torch.randn(2, 3, 5, 5)
    out = PadShortcut(2, 1, 4)(images)
    assert out.shape == (2, 8, 3, 3)
    assert out[:, 1:4].equal(images[:, :, ::2, ::2])
    assert not out[:, [0, 4, 5, 6, 7]].any()


def test_the_padded_zeros_surround_the_channels() -> None:
    shortcuts = [m for m in build_model("resnet20", {"shortcut": "pad"}).modules() if isinstance(m, PadShortcut)]
    assert [(m.stride, m.before, m.after) for m in shortcuts] == [(2, 8, 8), (2, 16, 16)]


def test_mobilenet_keeps_the_resolution_of_small_images() -> None:
    features = build_model("mobilenetv2", {"width": 0.25}).eval().get_submodule("features")
    assert features(torch.randn(1, 3, 32, 32)).shape[2:] == (4, 4)


def test_scaled_rounds_and_never_reaches_zero() -> None:
    assert [scaled(16, width) for width in (1.0, 0.5, 0.1, 0.001, 2)] == [16, 8, 2, 1, 32]


# ---- building ---------------------------------------------------------------------------------------------------


def test_listing_the_zoo_does_not_import_torch() -> None:
    code = "import sys; from autoprune.zoo import ZOO; ZOO.names(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def make_linear(size: int, *, bias: bool = True) -> nn.Module:
    return nn.Linear(size, size, bias=bias)


def make_text() -> str:
    return "not a network"


READY = nn.Identity()


def test_a_function_or_class_of_the_users_own_is_called() -> None:
    assert isinstance(build_model(f"{__name__}:make_linear", {"size": 3, "bias": False}), nn.Linear)
    assert isinstance(build_model("torch.nn:Flatten"), nn.Flatten)


@pytest.mark.parametrize(
    ("model", "arguments", "error", "words"),
    [
        ("resnet21", {}, RegistryError, ["'resnet21'", "Did you mean 'resnet20'?"]),
        (
            "resnet20",
            {"clases": 3},
            ConfigError,
            ["no argument 'clases'", "in_channels, classes", "Did you mean 'classes'?"],
        ),
        ("resnet20", {"shortcut": "padd"}, ConfigError, ["'padd'", "projection, pad", "Did you mean 'pad'?"]),
        ("vgg16", {"classes": 0}, ConfigError, ["classes", "at least 1", "got 0"]),
        ("densenet40", {"in_channels": "3"}, ConfigError, ["in_channels", "got '3'"]),
        ("mobilenetv2", {"width": -1.0}, ConfigError, ["width", "positive", "-1.0"]),
        ("preresnet164", {"width": float("nan")}, ConfigError, ["width", "nan"]),
        (f"{__name__}:make_linear", {}, ConfigError, ["make_linear", "needs the argument", "'size'"]),
        (f"{__name__}:make_text", {}, ConfigError, ["make_text", "returned a str", "torch.nn.Module"]),
        (f"{__name__}:READY", {}, ConfigError, ["READY", "is a Identity", "builds a new network"]),
    ],
)
def test_what_cannot_be_built_is_one_clear_error(
    model: str, arguments: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        build_model(model, arguments)
    assert all(word in str(caught.value) for word in words), str(caught.value)


# ---- weights ----------------------------------------------------------------------------------------------------


def _trained() -> nn.Module:
    model = build_model("resnet20", {"width": 0.25})
    model(torch.randn(8, 3, 16, 16))  # moves the running statistics
    return model


WRITERS: dict[str, Callable[[dict[str, torch.Tensor], Path], None]] = {
    "w.safetensors": lambda state, path: save_file(state, path),
    "bare.pt": lambda state, path: torch.save(state, path),
    "state_dict.pth": lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path),
    "model.pt": lambda state, path: torch.save({"model": state, "acc": 0.9}, path),
    "parallel.pt": lambda state, path: torch.save({f"module.{key}": value for key, value in state.items()}, path),
}


@pytest.mark.parametrize("file", WRITERS)
def test_weights_survive_the_round_trip(file: str, tmp_path: Path) -> None:
    source, target = _trained(), build_model("resnet20", {"width": 0.25})
    WRITERS[file](source.state_dict(), tmp_path / file)
    load_weights(target, tmp_path / file)
    assert all(target.state_dict()[key].equal(value) for key, value in source.state_dict().items())


def test_a_model_with_a_child_called_module_keeps_its_keys(tmp_path: Path) -> None:
    source, target = (nn.ModuleDict({"module": nn.Linear(2, 2)}) for _ in range(2))
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert target["module"].weight.equal(source["module"].weight)


def test_weights_of_another_model_are_named_and_nothing_is_changed(tmp_path: Path) -> None:
    model = _trained()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: value + 1 for key, value in before.items()}
    del state["conv.weight"]
    state |= {"head.weight": torch.zeros(2), "linear.weight": torch.zeros(5, 16)}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ConfigError) as caught:
        load_weights(model, tmp_path / "w.pt")
    for words in ("1 missing: conv.weight", "1 unexpected: head.weight", "linear.weight (5, 16) instead of (10, 16)"):
        assert words in str(caught.value)
    assert all(model.state_dict()[key].equal(value) for key, value in before.items())


def test_only_the_first_few_of_many_wrong_keys_are_named(tmp_path: Path) -> None:
    save_file({}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"\d+ missing: conv.weight, bn.weight, bn.bias, …\. Check"):
        load_weights(_trained(), tmp_path / "w.safetensors")


class Code:
    pass


@pytest.mark.parametrize(
    ("file", "write", "words"),
    [
        ("absent.pt", lambda path: None, "does not exist"),
        ("text.pt", lambda path: path.write_text("<html>not found</html>"), "cannot be read"),
        ("text.safetensors", lambda path: path.write_text("<html>not found</html>"), "cannot be read"),
        ("whole.pt", lambda path: torch.save(Code(), path), "more than tensors"),
        ("list.pt", lambda path: torch.save([1, 2], path), "no state dict"),
        ("numbers.pt", lambda path: torch.save({"epoch": 3}, path), "no state dict"),
    ],
)
def test_an_unusable_file_is_one_clear_error(
    file: str, write: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    write(tmp_path / file)
    with pytest.raises(ConfigError, match=words) as caught:
        load_weights(nn.Linear(2, 2), tmp_path / file)
    assert file in str(caught.value)
