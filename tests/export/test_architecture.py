from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import Convolutions, same_weights
from torch import Tensor, nn

import autoprune
from autoprune.errors import AutopruneError, RunError
from autoprune.export.architecture import PYTHON_MODEL, load, write_architecture
from autoprune.importance.members import rank_channels
from autoprune.space.cutting.slicing import slice_model
from autoprune.texts import ScoreScale
from autoprune.verdict.record import Arm, RunRecord

WIDTHS = (5, 7)
OURS = ["tiny"]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Convolutions, Path]:
    """A cut network and the folder it was exported to."""
    full = Convolutions()
    space = autoprune.trace(full, torch.zeros(1, 1, 8, 8), verify=False)
    cut = space.slice(full, WIDTHS)
    assert isinstance(cut, Convolutions)
    folder = tmp_path_factory.mktemp("net") / "export"
    ranking = rank_channels(full, space.search_space, "l1")
    return cut, write_architecture(record(space, "tiny:Convolutions"), cut, folder, ranking=ranking)


def record(space: autoprune.Space, factory: str, widths: tuple[int, ...] = WIDTHS) -> RunRecord:
    costs = {name: float(cost) for name, cost in space.cost(widths).items()}
    return RunRecord(
        directory=Path("run"),
        job={"model": {"factory": factory, "arguments": {"classes": 10}}},
        provenance={},
        space=space.search_space,
        budget=(),
        full_costs={name: float(cost) for name, cost in space.cost(space.full).items()},
        base={},
        scale=ScoreScale(unit="%"),
        test_split=True,
        trials=(),
        posterior={},
        arms=(Arm("winner", widths, costs, None, 1),),
        finals=(),
        verdict=None,
    )


def test_an_export_is_rebuilt_from_its_folder_alone(network: tuple[Convolutions, Path]) -> None:
    cut, folder = network
    loaded = load(folder, packages=OURS)
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
    assert all(isinstance(description["costs"][name], int) for name in ("flops", "params"))


def test_a_model_given_in_python_is_needed_again_and_only_read(
    network: tuple[Convolutions, Path], tmp_path: Path
) -> None:
    cut, _ = network
    full = Convolutions().train()
    space = autoprune.trace(full, torch.zeros(1, 1, 8, 8), verify=False)
    ranking = rank_channels(full, space.search_space, "l1")
    folder = write_architecture(record(space, PYTHON_MODEL), cut, tmp_path, ranking=ranking)
    assert "model=full_model" in (folder / "architecture.yaml").read_text()
    with pytest.raises(RunError, match=r"call autoprune\.load\(.*, model=full_model\)"):
        load(folder, packages=OURS)
    before = {name: tensor.clone() for name, tensor in full.state_dict().items()}
    assert same_weights(load(folder, model=full), cut)
    assert full.training
    assert all(torch.equal(before[name], tensor) for name, tensor in full.state_dict().items())


def test_loading_draws_nothing_from_the_global_generator(network: tuple[Convolutions, Path]) -> None:
    before = torch.get_rng_state()
    load(network[1], packages=OURS)
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
        load(folder, packages=OURS)


@pytest.mark.parametrize("widths", [{"conv1": {"kept": 5, "of": 8}}, {"conv1": 5, "conv2": 7}, None])
def test_widths_of_another_space_are_refused(
    network: tuple[Convolutions, Path], tmp_path: Path, widths: dict[str, object] | None
) -> None:
    folder = shutil.copytree(network[1], tmp_path / "net")
    description = yaml.safe_load((folder / "architecture.yaml").read_text())
    description["widths"] = widths
    (folder / "architecture.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises(RunError, match="architecture"):
        load(folder, packages=OURS)


@pytest.mark.parametrize("ranking", [[[0]], [[0] * 8, ["a"] * 12], [[0] * 8, [0] * 11], 3])
def test_a_damaged_ranking_is_one_clear_error(
    network: tuple[Convolutions, Path], tmp_path: Path, ranking: object
) -> None:
    folder = shutil.copytree(network[1], tmp_path / "net")
    space = json.loads((folder / "space.json").read_text())
    (folder / "space.json").write_text(json.dumps(space | {"ranking": ranking}))
    with pytest.raises(RunError, match="rank the channels of every group"):
        load(folder, packages=OURS)


def test_an_export_of_the_first_format_is_still_read(network: tuple[Convolutions, Path], tmp_path: Path) -> None:
    cut, folder = network
    folder = shutil.copytree(folder, tmp_path / "net")
    space = json.loads((folder / "space.json").read_text())
    for key in ("form", "steps", "origin", "ranking"):
        del space[key]
    for group in space["groups"]:
        for key in ("kind", "positions", "sets"):
            del group[key]
    (folder / "space.json").write_text(json.dumps(space | {"format": 1}))
    assert same_weights(load(folder, packages=OURS), cut)


class Slopes(nn.Module):
    """One of its buffers is cut, but is in no state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        self.register_buffer("slopes", torch.arange(8.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x) * self.slopes)
        return out


def test_buffers_in_no_state_dict_are_those_of_the_channels_that_are_left(tmp_path: Path) -> None:
    full, x = Slopes(), torch.randn(5, 4)
    space = autoprune.trace(full, x[:1])
    ranking = rank_channels(full, space.search_space, "random", seed=1)
    cut = slice_model(full, space.search_space, (3,), ranking)
    folder = write_architecture(record(space, PYTHON_MODEL, (3,)), cut, tmp_path, ranking=ranking)
    assert torch.equal(load(folder, model=Slopes())(x), cut(x))


def test_the_exported_space_is_strict_json(network: tuple[Convolutions, Path]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads((network[1] / "space.json").read_text(), parse_constant=refuse)


def test_the_architecture_file_alone_rebuilds_the_network_with_new_weights(
    described: tuple[Convolutions, Path], tmp_path: Path
) -> None:
    cut, folder = described
    shutil.copy(folder / "architecture.yaml", tmp_path / "architecture.yaml")
    alone = load(tmp_path / "architecture.yaml", packages=OURS)
    assert [(name, tensor.shape) for name, tensor in alone.state_dict().items()] == [
        (name, tensor.shape) for name, tensor in cut.state_dict().items()
    ]
    assert not alone.training
    shutil.copy(folder / "model.safetensors", tmp_path / "model.safetensors")
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load(tmp_path, packages=OURS)(x), cut.eval()(x))


def test_an_architecture_file_that_cannot_stand_alone_says_what_it_needs(network: tuple[Convolutions, Path]) -> None:
    with pytest.raises(RunError, match=r"load the whole folder with its space\.json and model\.safetensors"):
        load(network[1] / "architecture.yaml", packages=OURS)


def test_an_architecture_file_of_other_code_is_refused(described: tuple[Convolutions, Path], tmp_path: Path) -> None:
    text = (described[1] / "architecture.yaml").read_text()
    path = tmp_path / "architecture.yaml"
    path.write_text(text.replace("conv2:", "conv9:"))
    with pytest.raises(RunError, match=r"traced to other groups .*conv2, conv9"):
        load(path, packages=OURS)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> tuple[Convolutions, Path]:
    """A cut network and its export, which says what the network is called with."""
    full, x = Convolutions(), torch.zeros(1, 1, 8, 8)
    space = autoprune.trace(full, x, verify=False)
    cut = space.slice(full, WIDTHS)
    assert isinstance(cut, Convolutions)
    ranking = rank_channels(full, space.search_space, "l2")
    folder = tmp_path_factory.mktemp("described")
    return cut, write_architecture(record(space, "tiny:Convolutions"), cut, folder, ranking=ranking, example=x)


def test_an_export_that_names_other_code_is_not_loaded(network: tuple[Convolutions, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(network[1], tmp_path / "net")
    text = (folder / "architecture.yaml").read_text()
    (folder / "architecture.yaml").write_text(text.replace("tiny:Convolutions", "os:system"))
    with pytest.raises(RunError, match=r"would run os:system\(classes=10\)"):
        load(folder, packages=OURS)
    assert same_weights(load(folder, model=Convolutions()), network[0])  # nothing that it names is run


JUNK = (
    None,
    True,
    -1,
    7,
    2**40,
    10**400,
    1.5,
    float("nan"),
    "",
    "os:system",
    "\x1b[31m",
    "a" * 5000,
    [],
    [[]],
    {"a": 1},
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from _places(one, (*path, key))


def _changed(data: Any, rng: random.Random, places: list[tuple[Any, ...]]) -> Any:
    made = copy.deepcopy(data)
    *above, last = rng.choice(places)
    inner = made
    for key in above:
        inner = inner[key]
    if rng.random() < 0.2:
        del inner[last]
    elif isinstance(inner[last], int) and rng.random() < 0.4:
        inner[last] += rng.choice([-1, 1, 5])
    else:
        inner[last] = rng.choice(JUNK)
    return made


@pytest.mark.parametrize("name", ["architecture.yaml", "space.json"])
def test_a_damaged_export_is_refused_in_one_clear_error_or_loaded_as_it_was(
    described: tuple[Convolutions, Path], tmp_path: Path, name: str
) -> None:
    cut, source = described
    folder, rng = shutil.copytree(source, tmp_path / "net"), random.Random(0)
    data = yaml.safe_load((source / name).read_text())
    places, told = list(_places(data)), list[str]()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(200):
        changed = _changed(data, rng, places)
        (folder / name).write_text(json.dumps(changed) if name == "space.json" else yaml.safe_dump(changed))
        try:
            loaded = load(folder, packages=OURS)
        except AutopruneError as error:
            told.append(str(error))
        else:
            assert torch.equal(loaded(x), cut.eval()(x))
    assert len(told) > 40
    assert max(map(len, told)) < 2000


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: &a [*a]",
        "format: 1\nformat: 1",
        "[" * 3000,
        "a: 2020-99-99",
        "a: !!python/object/apply:os.system ['touch was-run']",
        f"format: {'9' * 5000}",
        "\x00",
        "# " + "x" * 2**20,
    ],
)
def test_an_architecture_file_that_is_a_trap_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "architecture.yaml").write_text(text)
    with pytest.raises(RunError, match=r"architecture\.yaml") as refused:
        load(tmp_path)
    assert len(str(refused.value)) < 1000


def test_what_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "architecture.yaml").symlink_to("/dev/zero")
    with pytest.raises(RunError, match="no plain file"):
        load(tmp_path)
