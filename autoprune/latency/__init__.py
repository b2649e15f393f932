"""Latency, measured on this machine and fitted for prediction; one file per backend, one line per backend below."""

from autoprune.registry import Registry

BACKENDS = Registry(
    "latency backend",
    {
        "torch": "autoprune.latency.backends.eager:Eager",
        "torch.compile": "autoprune.latency.backends.compiled:Compiled",
        "onnxruntime": "autoprune.latency.backends.onnxruntime:OnnxRuntime",
    },
    group="autoprune.latency_backends",
)
