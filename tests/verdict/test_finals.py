from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import X, closeness, fit, perceptron
from torch import nn

import autoprune
from autoprune.config.parts import NamedPart
from autoprune.engines.base import WorkerSetup
from autoprune.engines.local import LocalEngine
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.inherited import Inherited
from autoprune.importance.members import rank_channels
from autoprune.tasks.callable import CallableTask
from autoprune.trials.ledger import Notebook, open_storage
from autoprune.verdict.finals import FinalPlan, train_finals
from autoprune.verdict.record import Arm, FinalTraining
from autoprune.zoo import load_weights

PROTOCOLS = ("fine_tune", "scratch_e")
PLAN = FinalPlan(tuple(NamedPart(name=name) for name in PROTOCOLS), seeds=2, fine_tune_epochs=3, base_lr=0.1, seed=5)
ARMS = tuple(
    Arm(name, widths, {}, None, 1)
    for name, widths in (("winner", (8, 6)), ("uniform_all", (8, 6)), ("random_median", (4, 9)))
)


class Trainings:
    """A factory whose trainings are counted."""

    def __init__(self) -> None:
        model = perceptron()
        space = autoprune.trace(model, X[:1], verify=False).search_space
        self.seen: list[tuple[int, int]] = []

        def train(network: nn.Module, epochs: int, seed: int) -> None:
            self.seen.append((epochs, seed))
            fit(network, 1, seed)

        task = CallableTask(closeness, train, device=torch.device("cpu"))
        self.factory = CandidateFactory(model, space, rank_channels(model, space, "l2"), task, base_epochs=10)


def train_all(trainings: Trainings, folder: Path) -> list[FinalTraining]:
    shown: list[FinalTraining] = []
    notebook = Notebook(open_storage(None, folder / "journal.log"), "finals")

    def weights(arm: str) -> Path:
        return folder / f"{arm}.safetensors"

    engine = LocalEngine()
    engine.equip(WorkerSetup(trainings.factory, Inherited, "short", 1, folder))
    finals = train_finals(engine, ARMS, PLAN, notebook=notebook, weights=weights, on_final=shown.append)
    assert shown == finals
    return finals


def test_every_arm_is_trained_by_every_protocol_with_the_same_seeds(tmp_path: Path) -> None:
    trainings = Trainings()
    finals = train_all(trainings, tmp_path)
    pairs = {(f.protocol, f.seed) for f in finals}
    assert pairs == {(protocol, seed) for protocol in PROTOCOLS for seed in (5, 6)}
    assert all({f.arm for f in finals if (f.protocol, f.seed) == pair} == {a.name for a in ARMS} for pair in pairs)
    assert {f.epochs for f in finals if f.protocol == "fine_tune"} == {3}
    assert {f.epochs for f in finals if f.protocol == "scratch_e"} == {10}


def test_arms_of_equal_widths_share_their_trainings(tmp_path: Path) -> None:
    trainings = Trainings()
    scores = {(f.arm, f.protocol, f.seed): f.score for f in train_all(trainings, tmp_path)}
    assert len(trainings.seen) == 2 * len(PROTOCOLS) * PLAN.seeds
    for protocol, seed in {(protocol, seed) for _, protocol, seed in scores}:
        assert scores["winner", protocol, seed] == scores["uniform_all", protocol, seed]
        assert scores["winner", protocol, seed] != scores["random_median", protocol, seed]


def test_what_the_notebook_holds_is_not_trained_again(tmp_path: Path) -> None:
    first = train_all(Trainings(), tmp_path)
    again = Trainings()
    assert train_all(again, tmp_path) == first
    assert again.seen == []


def test_trainings_stopped_by_a_kill_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train_all(Trainings(), tmp_path)
    part = tmp_path / "part"
    part.mkdir()
    trainings, write, written = Trainings(), Notebook.write, 0

    def killed(self: Notebook, key: str, score: float, record: dict[str, object]) -> None:
        nonlocal written
        written += 1
        if written == 4:
            raise KeyboardInterrupt
        write(self, key, score, record)

    with monkeypatch.context() as patch:
        patch.setattr(Notebook, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            train_all(trainings, part)
    resumed = train_all(trainings, part)
    assert [(f.arm, f.protocol, f.seed, f.score) for f in resumed] == [
        (f.arm, f.protocol, f.seed, f.score) for f in whole
    ]
    assert len(trainings.seen) == 8 + 1, "only the training that was cut off is repeated"


def test_finals_of_a_version_that_did_not_recalibrate_are_trained_anew(tmp_path: Path) -> None:
    """A resumed run compares no network that was recalibrated with one that was not."""
    notebook = Notebook(open_storage(None, tmp_path / "journal.log"), "finals")
    notebook.write("fine_tune/5/8-6", -1e6, {"epochs": 3, "seconds": 1.0, "arm": "winner"})
    finals = train_all(Trainings(), tmp_path)
    assert min(final.score for final in finals) > -1e6
    again = Trainings()
    assert train_all(again, tmp_path) == finals
    assert again.seen == []


def test_the_first_network_of_every_arm_is_kept_with_its_weights(tmp_path: Path) -> None:
    trainings = Trainings()
    finals = train_all(trainings, tmp_path)
    first = {final.arm: final for final in reversed(finals) if (final.protocol, final.seed) == ("fine_tune", 5)}
    assert [path.stem for path in sorted(tmp_path.glob("*.safetensors"))] == sorted(arm.name for arm in ARMS)
    for arm in ARMS:
        network = trainings.factory.candidate(arm.widths)
        load_weights(network, tmp_path / f"{arm.name}.safetensors")
        assert closeness(network) == pytest.approx(first[arm.name].score, abs=1e-7)


def test_the_base_network_is_only_read(tmp_path: Path) -> None:
    trainings = Trainings()
    before = {name: tensor.clone() for name, tensor in trainings.factory.model.state_dict().items()}
    train_all(trainings, tmp_path)
    assert all(torch.equal(before[name], tensor) for name, tensor in trainings.factory.model.state_dict().items())
