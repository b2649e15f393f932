"""The searched network outside the run: one file per format, one card per format in the table below.

An exporter is made as `Exporter(**settings)`; `autoprune.export.base` says what it is given and what it does.
"""

from autoprune.registry import Part, Registry

EXPORTERS = Registry(
    "exporter",
    {
        "safetensors": Part(
            "autoprune.export.safetensors:Safetensors",
            "safetensors, https://huggingface.co/docs/safetensors",
            "The default: widths as plain text and weights without pickle, for `autoprune.load`.",
        ),
        "onnx": Part(
            "autoprune.export.onnx:Onnx",
            "ONNX, https://onnx.ai",
            "Runtimes other than PyTorch; checked with ONNX Runtime; needs `autoprune[onnx]`.",
        ),
        "torch_export": Part(
            "autoprune.export.torch_export:TorchExport",
            "torch.export, https://docs.pytorch.org/docs/stable/export.html",
            "PyTorch without the model's code: ExecuTorch, AOTInductor, or `torch.export.load`.",
        ),
        "transformers": Part(
            "autoprune.export.transformers:Transformers",
            "save_pretrained, https://huggingface.co/docs/transformers",
            "Networks of transformers: a folder for `from_pretrained`, where their widths fit into a config.",
        ),
        "module": Part(
            "autoprune.export.module:PlainModule",
            "the graph of torch.export, written as Python",
            "A Python file and its weights that need PyTorch and neither autoprune nor the model's own code.",
        ),
    },
    group="autoprune.exporters",
)
