from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from tiny import Convolutions, same_weights

import autoprune
from autoprune.errors import AutopruneError, RunError
from autoprune.export.architecture import PYTHON_MODEL, load, write_architecture
from autoprune.verdict.record import Arm, RunRecord

WIDTHS = (5, 7)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Convolutions, Path]:
    """A cut network and the folder it was exported to."""
    full = Convolutions()
    space = autoprune.trace(full, torch.zeros(1, 1, 8, 8), verify=False)
    cut = space.slice(full, WIDTHS)
    assert isinstance(cut, Convolutions)
    folder = write_architecture(record(space, "tiny:Convolutions"), cut, tmp_path_factory.mktemp("net") / "export")
    return cut, folder


def record(space: autoprune.Space, factory: str) -> RunRecord:
    costs = {name: float(cost) for name, cost in space.cost(WIDTHS).items()}
    return RunRecord(
        directory=Path("run"),
        job={"model": {"factory": factory, "arguments": {"classes": 10}}},
        provenance={},
        space=space.search_space,
        budget=(),
        full_costs={name: float(cost) for name, cost in space.cost(space.full).items()},
        base={},
        unit="%",
        test_split=True,
        trials=(),
        posterior={},
        arms=(Arm("winner", WIDTHS, costs, None, 1),),
        finals=(),
        verdict=None,
    )


def test_an_export_is_rebuilt_from_its_folder_alone(network: tuple[Convolutions, Path]) -> None:
    cut, folder = network
    loaded = load(folder)
    assert isinstance(loaded, Convolutions)
    assert not loaded.training
    assert same_weights(loaded, cut)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(x), cut.eval()(x))
    assert (loaded.conv1.out_channels, loaded.conv2.in_channels, loaded.conv2.out_channels) == (5, 5, 7)


def test_the_architecture_is_plain_text_for_people(network: tuple[Convolutions, Path]) -> None:
    _, folder = network
    text = (folder / "architecture.yaml").read_text()
    assert text.startswith("# A network found by autoprune.")
    description = yaml.safe_load(text)
    assert description["widths"] == {"conv1": {"kept": 5, "of": 8}, "conv2": {"kept": 7, "of": 12}}
    assert description["costs"]["flops"] < description["full_costs"]["flops"]
    assert all(isinstance(cost, int) for cost in description["costs"].values())


def test_a_model_given_in_python_is_needed_again_and_only_read(
    network: tuple[Convolutions, Path], tmp_path: Path
) -> None:
    cut, _ = network
    full = Convolutions().train()
    space = autoprune.trace(full, torch.zeros(1, 1, 8, 8), verify=False)
    folder = write_architecture(record(space, PYTHON_MODEL), cut, tmp_path)
    assert "model=full_model" in (folder / "architecture.yaml").read_text()
    with pytest.raises(RunError, match=r"call autoprune\.load\(.*, model=full_model\)"):
        load(folder)
    before = {name: tensor.clone() for name, tensor in full.state_dict().items()}
    assert same_weights(load(folder, model=full), cut)
    assert full.training
    assert all(torch.equal(before[name], tensor) for name, tensor in full.state_dict().items())


def test_loading_draws_nothing_from_the_global_generator(network: tuple[Convolutions, Path]) -> None:
    before = torch.get_rng_state()
    load(network[1])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("architecture.yaml", None),
        ("architecture.yaml", "widths: ["),
        ("architecture.yaml", "[]"),
        ("architecture.yaml", "format: 1"),
        ("architecture.yaml", "format: 99"),
        ("space.json", None),
        ("space.json", "{"),
        ("space.json", "{}"),
        ("space.json", "[]"),
        ("model.safetensors", None),
        ("model.safetensors", "no tensors"),
    ],
)
def test_a_damaged_export_is_one_clear_error(
    network: tuple[Convolutions, Path], tmp_path: Path, name: str, content: str | None
) -> None:
    folder = shutil.copytree(network[1], tmp_path / "net")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(AutopruneError, match=rf"{name.partition('.')[0]}|space file"):
        load(folder)


@pytest.mark.parametrize("widths", [{"conv1": {"kept": 5, "of": 8}}, {"conv1": 5, "conv2": 7}, None])
def test_widths_of_another_space_are_refused(
    network: tuple[Convolutions, Path], tmp_path: Path, widths: dict[str, object] | None
) -> None:
    folder = shutil.copytree(network[1], tmp_path / "net")
    description = yaml.safe_load((folder / "architecture.yaml").read_text())
    description["widths"] = widths
    (folder / "architecture.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises(RunError, match="architecture"):
        load(folder)


def test_the_exported_space_is_strict_json(network: tuple[Convolutions, Path]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads((network[1] / "space.json").read_text(), parse_constant=refuse)
