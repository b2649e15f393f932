from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import autoprune
from autoprune.cost.latency.device_profile import Conditions
from autoprune.cost.latency.kernels import distinct_kernels, timed_calls
from autoprune.errors import ConfigError, EvaluationError
from autoprune.latency import BACKENDS
from autoprune.latency.backends import onnxruntime as onnx_backend
from autoprune.latency.backends.compiled import Compiled
from autoprune.latency.backends.eager import Eager, fold_batch_norm
from autoprune.latency.backends.onnxruntime import OnnxRuntime
from autoprune.latency.measure import measure
from autoprune.zoo import build_model


class Varied(nn.Module):
    """Operators that take their settings in different ways: by position, by keyword, as lists, none at all."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.layer_norm = nn.BatchNorm2d(8), nn.LayerNorm(16)
        self.left, self.right = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 10, 1)
        self.table = nn.Parameter(torch.randn(16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.depthwise(F.relu(self.first(x)))))
        x = F.max_pool2d(torch.cat([self.left(x), self.right(x)], 1), 2)
        x = x.mean((2, 3)).add(self.table, alpha=2)
        out: Tensor = self.head(F.softmax(self.layer_norm(x), dim=1))
        return out


def test_every_backend_measures_a_network() -> None:
    assert BACKENDS.names()[:3] == ["torch", "torch.compile", "onnxruntime"]
    for name in ("torch", "onnxruntime"):
        if name == "onnxruntime":
            pytest.importorskip("onnxruntime")
        latency = measure(Varied(), torch.randn(1, 3, 8, 8), Conditions(backend=name))
        assert latency.ms > 0
        assert latency.versions[name]


@pytest.mark.slow
def test_compiled_networks_compute_the_same() -> None:
    model, x = build_model("resnet20").eval(), torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        run = Compiled().ready(model, (x,), {}, Conditions(backend="torch.compile"))
        torch.testing.assert_close(run(), model(x), rtol=1e-3, atol=1e-3)


def test_every_kernel_of_a_network_runs_alone() -> None:
    space = autoprune.trace(Varied(), torch.randn(1, 3, 8, 8), verify=False).search_space
    found = distinct_kernels(timed_calls(space))
    assert {kernel.operator for kernel, _ in found.values()} >= {"conv2d", "batch_norm", "cat", "add", "layer_norm"}
    for kernel, calls in found.values():
        for widths in (space.full, space.uniform(0.5)):
            shapes = kernel.shapes([size(widths) for size in calls[0].sizes], batch=2)
            run = Eager().kernel(kernel, shapes, Conditions())
            assert run is not None, kernel.name
            made = run()
            expected = [[size(widths) for size in sizes] for sizes in calls[0].written]
            assert [2, *expected[0][1:]] == list(made.shape), kernel.name


def test_kernels_take_dtype_and_memory_format() -> None:
    space = autoprune.trace(build_model("resnet20"), torch.randn(1, 3, 32, 32), verify=False).search_space
    kernel, calls = next(iter(distinct_kernels(timed_calls(space)).values()))
    shapes = kernel.shapes([size(space.full) for size in calls[0].sizes])
    run = Eager().kernel(kernel, shapes, Conditions(dtype="bfloat16", channels_last=True))
    assert run is not None
    made = run()
    assert made.dtype == torch.bfloat16
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_folded_norms_compute_the_same_and_have_no_time() -> None:
    model = build_model("resnet20").eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    x = torch.randn(2, 3, 32, 32)
    folded = fold_batch_norm(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(x), model(x), rtol=1e-3, atol=1e-3)
    space = autoprune.trace(model, x, verify=False).search_space
    norm, calls = next(v for v in distinct_kernels(timed_calls(space)).values() if v[0].kind == "norm")
    shapes = norm.shapes([size(space.full) for size in calls[0].sizes])
    assert Eager().kernel(norm, shapes, Conditions(fold_batch_norm=True)) is None
    assert Eager().kernel(norm, shapes, Conditions()) is not None


def test_what_cannot_be_folded_says_so() -> None:
    class Decides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(EvaluationError, match=r"Decides cannot be folded.*without fold_batch_norm"):
        measure(Decides(), torch.ones(1), Conditions(fold_batch_norm=True))


def test_onnxruntime_runs_what_the_network_computes() -> None:
    runtime = pytest.importorskip("onnxruntime")
    model, x = Varied().eval(), torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        exported = onnx_backend._export(model, (x,), {})
        session = runtime.InferenceSession(exported, providers=["CPUExecutionProvider"])
        (made,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(made), model(x), rtol=1e-3, atol=1e-4)


def test_onnxruntime_times_products_alone_and_leaves_the_rest() -> None:
    pytest.importorskip("onnxruntime")
    space = autoprune.trace(Varied(), torch.randn(1, 3, 8, 8), verify=False).search_space
    ran = set()
    for kernel, calls in distinct_kernels(timed_calls(space)).values():
        shapes = kernel.shapes([size(space.uniform(0.5)) for size in calls[0].sizes])
        run = OnnxRuntime().kernel(kernel, shapes, Conditions(backend="onnxruntime"))
        if run is not None:
            run()
            ran.add(kernel.kind)
    assert ran == {"convolution", "depthwise", "product"}


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"No module named 'onnxruntime'.*pip install 'autoprune\[onnx\]'"):
        OnnxRuntime().ready(Varied(), (), {}, Conditions(backend="onnxruntime"))


@pytest.mark.parametrize("given", [{"dtype": "bfloat16"}, {"channels_last": True}])
def test_onnxruntime_says_what_it_does_not_do(given: dict[str, Any]) -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(ConfigError, match="measures float32 on the CPU and chooses layouts itself"):
        measure(Varied(), torch.randn(1, 3, 8, 8), Conditions(backend="onnxruntime", **given))


def test_what_cannot_be_exported_says_so() -> None:
    pytest.importorskip("onnxruntime")

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(x.numpy() * 2) if x.sum() > 0 else torch.linalg.matrix_exp(x)

    with pytest.raises(EvaluationError, match=r"Odd cannot be exported to ONNX.*use the backend torch"):
        measure(Odd(), -torch.ones(2, 2), Conditions(backend="onnxruntime"))
