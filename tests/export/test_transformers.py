"""Cut networks of transformers as folders that `from_pretrained` loads, without autoprune."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import hugging_face
import numpy as np
import pytest
import torch
from torch import nn

from autoprune.config.space import SpaceOptions
from autoprune.errors import ExportError
from autoprune.export.base import ExportSource
from autoprune.export.inputs import describe
from autoprune.export.transformers import Transformers
from autoprune.export.writing import exporters, write_formats
from autoprune.space.cutting.slicing import random_ranking, slice_model
from autoprune.space.groups import SearchSpace
from autoprune.space.serial import to_json
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import unverified

ALONE = """
import sys
sys.modules["autoprune"] = None  # whoever imports it fails
sys.modules["torchvision"] = None  # needed by no text, and not to be had beside every build of torch
import torch, transformers
folder, name = sys.argv[1:]
network = getattr(transformers, name).from_pretrained(folder + "/transformers", local_files_only=True).eval()
given = torch.load(folder + "/given.pt")
with torch.no_grad():
    found = network(**given["inputs"]).logits
print(float((found - given["logits"]).abs().max()))
"""


OFFERED = SpaceOptions(blocks=True)


@cache
def traced(name: str, options: SpaceOptions = OFFERED) -> tuple[nn.Module, SearchSpace]:
    """A network and its space, blocks offered."""
    network = hugging_face.network(name)
    return network, unverified(network, trace(network, hugging_face.inputs(name), options=options)).space


def source(name: str, widths: Any, options: SpaceOptions = OFFERED) -> ExportSource:
    """A network of these widths, given by a function of group and number."""
    network, space = traced(name, options)
    chosen = space.check([widths(number, group) for number, group in enumerate(space.groups)])
    cut = slice_model(network, space, chosen, random_ranking(space, np.random.default_rng(0))).eval()
    told = {group.name: {"kept": kept, "of": group.width} for group, kept in zip(space.groups, chosen, strict=True)}
    architecture = {"widths": told, "form": space.form}
    inputs = hugging_face.inputs(name)
    return ExportSource(architecture, to_json(space), cut.state_dict(), lambda: cut, lambda: describe(inputs))


def half(number: int, group: Any) -> int:
    return group.width if group.kind == "blocks" else group.width // 2


def inner(number: int, group: Any) -> int:
    return group.width if group.residual or group.kind == "blocks" else group.width // 2


def written(given: ExportSource, folder: Path) -> Path:
    return write_formats(given, exporters(["transformers"]), folder)


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("llama", half),
        ("gpt2", half),
        *(pytest.param(*row, marks=pytest.mark.slow) for row in (("qwen3", inner), ("gemma3", inner), ("bert", half))),
    ],
)
def test_a_cut_network_is_loaded_without_autoprune_and_computes_the_same(
    name: str, widths: Any, tmp_path: Path
) -> None:
    given = source(name, widths)
    folder, inputs = written(given, tmp_path / "out"), hugging_face.inputs(name)
    with torch.no_grad():
        logits = given.network(**inputs).logits
    torch.save({"inputs": inputs, "logits": logits}, folder / "given.pt")
    (tmp_path / "alone.py").write_text(ALONE)
    command = [sys.executable, str(tmp_path / "alone.py"), str(folder), type(given.network).__name__]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= 1e-4 * float(logits.abs().max())


@pytest.mark.parametrize("options", [OFFERED, SpaceOptions(per="model")], ids=["by layer", "tied"])
def test_a_config_says_the_widths(options: SpaceOptions, tmp_path: Path) -> None:
    written(source("llama", half, options), tmp_path / "out")
    found = hugging_face.library().AutoConfig.from_pretrained(str(tmp_path / "out" / "transformers"))
    assert (found.hidden_size, found.intermediate_size, found.head_dim) == (12, 24, 6)
    assert (found.num_attention_heads, found.num_key_value_heads) == (2, 1)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_layers_that_were_left_out_are_not_counted(name: str, tmp_path: Path) -> None:
    _, space = traced(name)
    first = next(number for number, group in enumerate(space.groups) if group.kind == "blocks")
    given = source(name, lambda number, group: 0 if number == first else group.width)
    written(given, tmp_path / "out")  # which compares the outputs
    found = hugging_face.library().AutoConfig.from_pretrained(str(tmp_path / "out" / "transformers"))
    assert found.num_hidden_layers == 1


def test_layers_of_several_widths_are_refused_with_the_reason_where_transformers_has_no_place(tmp_path: Path) -> None:
    given = source("llama", lambda number, group: 24 if number == 2 else group.width)
    with pytest.raises(ExportError, match=r"intermediate_size \[24, 48\].*one width for all.*per: model"):
        written(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "widths", "message"),
    [
        ("gpt2", inner, "do not fit into a config: with .*transformers has"),
        ("gemma3", half, "differs from the one that was searched"),  # it scales embeddings by their width
    ],
)
def test_widths_that_a_config_cannot_say_are_refused(name: str, widths: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        written(source(name, widths), tmp_path / "out")


def test_a_network_of_another_library_is_refused(tmp_path: Path) -> None:
    network = nn.Linear(3, 2)
    given = ExportSource({"widths": {}}, {}, network.state_dict(), lambda: network, dict)
    with pytest.raises(ExportError, match="is a Linear, no model of transformers; take safetensors"):
        Transformers().write(given, tmp_path)
