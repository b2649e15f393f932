"""Tasks of labels, numbers, maps and boxes: chosen from a job and from Python, and what does not fit is told first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from task_nets import OfLists, Reader, Scenes, SingleShot, TinyUNet, parts, scene, seeded_network
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from typer.testing import CliRunner

import autoprune
from autoprune.cli.main import app
from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.data.batch import Batch, Ragged
from autoprune.errors import AutopruneError, ConfigError, DataError
from autoprune.tasks.base import Task, TaskInputs, make_task

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, lr=0.003, batch_size=8, optimizer="adamw")
NETWORKS = {"multilabel": Reader, "regression": Reader, "segmentation": TinyUNet, "detection": SingleShot}
IMAGES = torch.rand(30, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def made(name: str, data: Any = None, network: Any = None, recipe: Recipe = RECIPE, **settings: Any) -> Task:
    model = seeded_network(network or NETWORKS[name], 0)
    return make_task(name, settings, TaskInputs(model, parts(name) if data is None else data, recipe, CPU))


def both(targets: Any, images: Tensor = IMAGES) -> dict[str, Any]:
    return dict.fromkeys(("train", "validation"), TensorDataset(images, targets))


@pytest.mark.parametrize(
    ("name", "objective", "scale"),
    [
        ("multilabel", "binary_cross_entropy", "multilabel_average_precision in %, higher is better"),
        ("regression", "mse", "mean_squared_error, lower is better"),
        ("segmentation", "pixel_cross_entropy", "mean_iou in %, higher is better"),
        ("detection", "detection_loss", "mean_average_precision in %, higher is better"),
    ],
)
def test_the_objective_of_a_recipe_that_names_none_and_the_measure_are_the_tasks(
    name: str, objective: str, scale: str
) -> None:
    task = made(name)
    assert task.recipe is not None
    assert task.recipe.objective.name == objective
    assert task.scale.told == scale


def test_an_objective_that_a_recipe_names_is_used() -> None:
    recipe = RECIPE.model_copy(update={"objective": NamedPart(name="mse")})
    own, usual = made("multilabel", recipe=recipe), made("multilabel")
    assert own.recipe is not None
    assert own.recipe.objective.name == "mse"
    assert own.fingerprint != usual.fingerprint


def test_settings_of_a_measure_change_the_fingerprint() -> None:
    given = TaskInputs(seeded_network(Reader, 0), parts("multilabel"), RECIPE, CPU)
    prints = {
        make_task(
            "multilabel", {}, given, measure={"name": "multilabel_f1", "settings": {"threshold": share}}
        ).fingerprint
        for share in (0.4, 0.5)
    }
    assert len(prints) == 2


@pytest.mark.parametrize("name", ["multilabel", "segmentation", "regression"])
def test_a_distilled_training_learns_from_the_base_network(name: str) -> None:
    task = made(name).distilled()
    assert task is not None
    assert task.needs_teacher
    model, teacher = (seeded_network(NETWORKS[name], seed) for seed in (1, 2))
    task.train(model, epochs=1, seed=0, teacher=teacher)  # type: ignore[call-arg]  # of tasks with a recipe
    assert made("detection").distilled() is None


def test_single_numbers_stand_in_a_column_where_the_network_gives_one() -> None:
    numbers = IMAGES.mean((1, 2, 3))
    column = made("regression", both(numbers), lambda: Reader(1))
    (batch,) = column.calibration_batches(1, seed=0)
    assert batch.targets.shape == (8, 1)
    model = seeded_network(lambda: Reader(1), 0).eval()
    with torch.no_grad():
        by_hand = float((model(IMAGES)[:, 0] - numbers).square().mean())
    assert column.scale.turned(column.score(model)) == pytest.approx(by_hand, rel=1e-5)
    whole = made("regression", both(torch.arange(30)), lambda: Reader(1))
    assert whole.calibration_batches(1, seed=0)[0].targets.dtype == torch.float32


def test_pixels_that_do_not_count_are_those_of_the_setting() -> None:
    images, masks = (torch.stack(list(one)) for one in zip(*Scenes("segmentation", 12).rows, strict=True))
    masks[:, :3] = 255
    seen = made("segmentation", both(masks, images)).calibration_batches(1, seed=0)[0].targets
    assert set(seen.unique().tolist()) == {-100, 0, 1, 2}
    masks[masks == 255] = 2
    other = made("segmentation", both(masks, images), ignore_index=2).calibration_batches(1, seed=0)[0].targets
    assert set(other.unique().tolist()) == {-100, 0, 1}
    with pytest.raises(DataError, match=r"class number -[123] in a mask; allowed are 0 and more"):
        made("segmentation", both(masks - 3, images))


def test_masks_may_have_a_channel_and_be_pictures() -> None:
    from PIL import Image

    rows = [(image, Image.fromarray(mask.numpy().astype(np.uint8))) for image, mask, _ in map(scene, range(10))]
    whole = [scene(i)[1] for i in range(10)]
    listed = made("segmentation", dict.fromkeys(("train", "validation"), _List(rows)))
    tensors = made("segmentation", both(torch.stack(whole)[:, None], torch.stack([row[0] for row in rows])))
    model = seeded_network(TinyUNet, 3)
    assert listed.score(model) == tensors.score(model)


class _List(torch.utils.data.Dataset[Any]):
    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Any:
        return self.rows[number]


def test_images_of_one_size_are_stacked_and_others_a_list_and_loaders_may_collate_as_torchvision_does() -> None:
    same, other = made("detection", network=OfLists), made("detection", parts("detection", (16, 20)), OfLists)
    assert isinstance(same.calibration_inputs(1, seed=0)[0], Tensor)
    (inputs,) = other.calibration_inputs(1, seed=0)
    assert {image.shape[1] for image in inputs[0]} == {16, 20}
    example = other.example_input()
    assert type(example[0]) is list
    loaders = {
        role: DataLoader(part, 5, collate_fn=lambda rows: tuple(zip(*rows, strict=True)))
        for role, part in parts("detection", (16, 20)).items()
    }
    model = seeded_network(OfLists, 1)
    assert other.score(model, split="test") == pytest.approx(
        made("detection", loaders, OfLists).score(model, split="test")
    )


def from_outside(maps: Tensor, targets: Any) -> Any:
    return SingleShot.loss(SingleShot(), maps, targets)


def boxes_from_outside(maps: Tensor, images: Any) -> Any:
    assert len(images) == len(maps)
    return SingleShot().detections(maps, images)


def test_loss_and_detections_may_be_functions_of_a_job() -> None:
    own, model = made("detection"), seeded_network(SingleShot, 1)
    plain = nn.Sequential(*model.children())
    names = {"loss": f"{__name__}:from_outside", "detections": f"{__name__}:boxes_from_outside"}
    task = made("detection", network=lambda: nn.Sequential(*SingleShot().children()), **names)
    assert task.score(plain) == own.score(model)
    task.train(plain, epochs=1, seed=0)
    own.train(model, epochs=1, seed=0)
    assert all(map(torch.equal, plain.state_dict().values(), model.state_dict().values()))
    assert task.objective is not None
    assert made("detection", network=OfLists).objective is None


def test_a_traced_graph_of_a_detector_is_trained_and_scored_by_the_methods_of_the_network() -> None:
    network = seeded_network(SingleShot, 0)
    task = make_task("detection", {}, TaskInputs(network, parts("detection"), RECIPE, CPU))
    graph = torch.export.export(network.eval(), (torch.rand(2, 1, 16, 16),), dynamic_shapes=None).module()
    assert not hasattr(graph, "detections")
    batch = task.calibration_batches(1, seed=0)[0].first(2)
    assert task.objective is not None
    assert task.objective(graph(batch.inputs), batch.targets).isfinite()


WRONG: list[tuple[str, Any, Any, dict[str, Any], type[AutopruneError], str]] = [
    ("multilabel", both(torch.arange(30)), None, {}, DataError, "needs a row of 0 and 1 for each example"),
    ("multilabel", both(torch.full((30, 2), 2)), None, {}, DataError, r"train, batch 0.*each must be 0 or 1"),
    ("multilabel", both(torch.ones(30, 3)), None, {}, ConfigError, "targets of 0 and 1 of the same shape"),
    ("regression", both(torch.full((30, 2), torch.nan)), None, {}, DataError, "a target is NaN or infinite"),
    ("regression", both(1e300 * torch.ones(30, 2).double()), None, {}, DataError, "infinite, as 32-bit numbers"),
    (
        "regression",
        both(torch.ones(30, 2), IMAGES.double()),
        None,
        {},
        ConfigError,
        "from torch.float64 to torch.float3",
    ),
    ("regression", both(torch.ones(30, 3)), None, {}, ConfigError, "outputs and targets of one shape"),
    ("segmentation", both(torch.rand(30, 16, 16)), None, {}, DataError, "class numbers are whole"),
    ("segmentation", both(torch.ones(30)), None, {}, DataError, "needs a mask of class numbers"),
    ("segmentation", both(torch.full((30, 16, 16), 7)), None, {}, ConfigError, "class number 7 for a network that"),
    ("segmentation", both(torch.ones(30, 8, 8).long()), None, {}, ConfigError, "maps of the size of the masks"),
    ("segmentation", None, Reader, {}, ConfigError, r"needs outputs \(N, classes, H, W\)"),
    ("segmentation", None, None, {"ignore_index": "border"}, ConfigError, "ignore_index must be a whole number"),
    ("detection", both(torch.ones(30)), None, {}, DataError, "must be a mapping with boxes"),
    (
        "detection",
        dict.fromkeys(("train", "validation"), _List([(IMAGES[0], {"boxes": [[4, 4, 2, 6]], "labels": [1]})] * 3)),
        None,
        {},
        DataError,
        r"row 0: the box \[4.0, 4.0, 2.0, 6.0\] is none",
    ),
    (
        "detection",
        dict.fromkeys(("train", "validation"), _List([(IMAGES[0], {"boxes": [[1, 1, 2, 2]], "labels": [1.5]})] * 3)),
        None,
        {},
        DataError,
        r"train, batch 0.*whole numbers from 0 on, got \[1.5\]",
    ),
    ("detection", parts("detection", (16, 20)), None, {}, ConfigError, "the model does not run on the data's inputs"),
    ("detection", None, TinyUNet, {}, ConfigError, "say how detections are made of what the network returns"),
    ("detection", None, None, {"loss": "task_nets:KINDS"}, ConfigError, "loss must be a function or module:function"),
    ("regression", [torch.ones(3)], None, {}, DataError, "data must be DataSplits, a mapping with 'train'"),
]


@pytest.mark.parametrize(("name", "data", "network", "settings", "kind", "message"), WRONG)
def test_what_does_not_fit_is_one_clear_error(
    name: str, data: Any, network: Any, settings: dict[str, Any], kind: type[AutopruneError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        made(name, data, network, **settings)
    assert "\n" not in str(caught.value)


def test_label_smoothing_where_a_loss_has_none_is_refused() -> None:
    for name in ("detection", "regression"):
        with pytest.raises(ConfigError, match="label_smoothing"):
            made(name, recipe=RECIPE.model_copy(update={"label_smoothing": 0.1}))


def segments(count: int = 24) -> dict[str, Any]:
    """Data of a job."""
    return parts("segmentation", counts=(count, 16, 8))


JOB = {
    "model": {"factory": "task_nets:TinyUNet"},
    "data": {"name": f"{__name__}:segments"},
    "task": {"name": "segmentation", "settings": {"ignore_index": 9}, "measure": "dice"},
    "training": {"epochs": 1, "lr": 0.01, "batch_size": 8, "optimizer": "adamw"},
    "constraints": {"flops": "60%"},
    "search": {"trials": 2, "allocations": []},
    "verdict": {"seeds": 1, "fine_tune_epochs": 1, "protocols": ["fine_tune"], "latency": False},
    "threads": 1,
    "callbacks": [],
}


def test_a_job_chooses_its_task(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    found = CliRunner().invoke(app, ["search", str(tmp_path / "job.yaml"), "--run-dir", str(tmp_path / "run")])
    assert found.exit_code == 0, found.output
    assert (tmp_path / "run" / "report.html").is_file()
    assert "dice" in (tmp_path / "run" / "report.html").read_text()


def test_a_job_whose_data_do_not_fit_its_task_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**JOB, "task": "multilabel"}))
    found = CliRunner().invoke(app, ["search", str(tmp_path / "job.yaml"), "--run-dir", str(tmp_path / "run")])
    assert isinstance(found.exception, DataError)  # exit code 2, as of all errors of ours
    assert "needs a row of 0 and 1 for each example" in str(found.exception)
    assert not (tmp_path / "run").exists()


def test_a_detector_of_lists_is_searched_from_python(tmp_path: Path) -> None:
    data = parts("detection", (16, 20), (24, 16, 8))
    result = autoprune.search(
        seeded_network(OfLists, 0),
        ([torch.rand(1, 16, 16)],),
        constraints={"flops": "60%"},
        data=data,
        task="detection",
        measure={"name": "mean_average_precision", "settings": {"overlap": 0.5}},
        trained=False,
        training={"epochs": 2, "lr": 0.01, "batch_size": 8, "optimizer": "adamw"},
        trials=2,
        allocations=[],
        threads=1,
        verdict={"seeds": 1, "fine_tune_epochs": 1, "protocols": ["fine_tune"], "latency": False},
        callbacks=(),
        progress="silent",
        run_dir=tmp_path / "run",
    )
    assert result.verdict is not None
    assert {"boxes", "scores", "labels"} == set(result.model([data["test"][0][0]])[0])


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression in plain Python, where torchvision comes without its compiled operators."""
    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        others = boxes[kept]
        low, high = torch.maximum(others[:, :2], boxes[index, :2]), torch.minimum(others[:, 2:], boxes[index, 2:])
        both_in = (high - low).clamp(min=0).prod(1)
        areas = (others[:, 2:] - others[:, :2]).prod(1) + (boxes[index, 2:] - boxes[index, :2]).prod()
        if not bool((both_in / (areas - both_in) > threshold).any()):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


@pytest.fixture
def detectors(import_torchvision: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Any:
    torchvision = import_torchvision()
    library = None
    if not torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "CPU"):
        library = torch.library.Library("torchvision", "IMPL")
        library.impl("nms", _nms, "CPU")
        monkeypatch.setattr(torchvision.extension, "_has_ops", lambda: True)
    from torchvision.models import detection

    return detection, library


def test_a_detector_of_torchvision_is_trained_and_scored_as_it_is(detectors: Any) -> None:
    def network() -> nn.Module:
        options = {"weights": None, "weights_backbone": None, "num_classes": 3, "detections_per_img": 10}
        made: nn.Module = detectors[0].ssdlite320_mobilenet_v3_large(**options, topk_candidates=20)
        return made

    data = {
        role: _List([(image.expand(3, -1, -1), target) for image, target in part.rows])
        for role, part in parts("detection", (64, 72), (2, 2, 2)).items()
    }
    recipe = Recipe(epochs=1, lr=1e-4, batch_size=2, optimizer="adamw")
    task, model = made("detection", data, network, recipe), seeded_network(network, 0)
    before = [parameter.clone() for parameter in model.parameters()]
    task.train(model, epochs=1, seed=0)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert 0 <= task.score(model) <= 100
    batch = task.calibration_batches(1, seed=0)[0]
    with torch.no_grad():
        found = Batch(batch.inputs).outputs(model)
    assert {"boxes", "scores", "labels"} == set(found[0])
    assert isinstance(batch.targets, Ragged)
