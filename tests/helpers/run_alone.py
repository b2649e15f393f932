"""Exports run in a process of their own, where neither autoprune nor the libraries of the networks can be imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from autoprune.export.base import ExportSource
from autoprune.export.inputs import drawn, tensors_of
from autoprune.space.tracing.program import call_arguments

_SCRIPT = """
import os, sys
for absent in ("autoprune", "torchvision", "timm", "transformers"):
    sys.modules[absent] = None  # importing it raises ImportError
import torch
from safetensors.torch import load_file
from torch.utils import _pytree as pytree

def onnx_call(path):
    import onnxruntime
    session = onnxruntime.InferenceSession(path)
    names = [taken.name for taken in session.get_inputs()]
    def call(*args, **kwargs):
        given = dict(zip(names, args)) | kwargs
        return [torch.from_numpy(made) for made in session.run(None, {k: v.numpy() for k, v in given.items()})]
    return call

runs = 0
for folder in sys.argv[1:]:
    known = load_file(folder + "/known.safetensors")
    args = [known[key] for key in sorted(known) if key.startswith("position.")]
    kwargs = {key[5:]: known[key] for key in known if key.startswith("name.")}
    expected = [known[key] for key in sorted(known) if key.startswith("output.")]
    sys.path.insert(0, folder + "/module")
    sys.modules.pop("model", None)
    calls = []
    if os.path.exists(folder + "/module"):
        import model
        calls.append(model.build())
    if os.path.exists(folder + "/model.pt2"):
        calls.append(torch.export.load(folder + "/model.pt2").module())
    if os.path.exists(folder + "/model.onnx"):
        calls.append(onnx_call(folder + "/model.onnx"))
    for call in calls:
        with torch.no_grad():
            given = [one for one in pytree.tree_leaves(call(*args, **kwargs)) if isinstance(one, torch.Tensor)]
        assert [one.shape for one in given] == [one.shape for one in expected]
        for one, other in zip(given, expected):
            assert (one - other).abs().max() <= 1e-4 * other.abs().max(), (folder, call)
        runs += 1
    sys.path.pop(0)
print(runs, "runs", "autoprune imported" if any(name.startswith("autoprune.") for name in sys.modules) else "alone")
"""


def run_alone(exports: Mapping[Path, ExportSource]) -> str:
    """What the process says, which has compared each network with what it computes here: "N runs alone".

    Args:
        exports: folder of an export -> the network that it was made from.
    """
    for folder, source in exports.items():
        args, kwargs = call_arguments(drawn(source.inputs, seed=9, batch=3))
        with torch.no_grad():
            outputs = tensors_of(source.network(*args, **kwargs))
        assert all(output.std() > 0 for output in outputs), "a constant output shows nothing"
        known = {f"position.{i}": tensor for i, tensor in enumerate(args)}
        known |= {f"name.{name}": tensor for name, tensor in kwargs.items()}
        known |= {f"output.{i}": tensor for i, tensor in enumerate(outputs)}
        save_file({name: tensor.contiguous().clone() for name, tensor in known.items()}, folder / "known.safetensors")
    command = [sys.executable, "-c", _SCRIPT, *map(str, exports)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    return done.stdout.strip() or done.stderr
