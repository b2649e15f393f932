"""Latency, measured on this machine and fitted for prediction; one file per backend, one card per backend below."""

from autoprune.registry import Part, Registry

BACKENDS = Registry(
    "latency backend",
    {
        "torch": Part(
            "autoprune.latency.backends.eager:Eager",
            "PyTorch, operator by operator",
            "The default: networks that run as PyTorch modules.",
        ),
        "torch.compile": Part(
            "autoprune.latency.backends.compiled:Compiled",
            "PyTorch's compiler with frozen weights: Ansel et al. 2024, PyTorch 2",
            "Networks that are compiled where they run; every measurement costs a compilation.",
        ),
        "onnxruntime": Part(
            "autoprune.latency.backends.onnxruntime:OnnxRuntime",
            "ONNX Runtime, https://onnxruntime.ai",
            "Networks that are exported to ONNX and run on a CPU.",
        ),
    },
    group="autoprune.latency_backends",
)
