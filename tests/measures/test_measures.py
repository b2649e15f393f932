"""The numbers of measures of classifiers are those of libraries that share no code with us."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, rel_entr, softmax
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError, RegistryError
from autoprune.measures.base import Measure, make_measure
from autoprune.measures.divergence import Divergence
from autoprune.tasks.scoring import BaseOutputs, scored_by

CPU = torch.device("cpu")


@pytest.fixture
def given() -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, the base network's outputs, and labels."""
    generator = torch.Generator().manual_seed(3)
    outputs, base = (3 * torch.randn(50, 4, generator=generator) for _ in range(2))
    return outputs, base, torch.randint(4, (50,), generator=generator)


def test_accuracy_is_scikit_learns(given: tuple[Tensor, Tensor, Tensor]) -> None:
    outputs, _, labels = given
    score, error = _score(make_measure("accuracy"), outputs, labels)
    assert score == 100 * accuracy_score(labels, outputs.argmax(1))
    share = (50 * accuracy_score(labels, outputs.argmax(1)) + 1) / 52
    assert error == pytest.approx(100 * np.sqrt(share * (1 - share) / 52))


def test_accuracy_is_over_all_batches_in_their_order() -> None:
    from autoprune.data.base import LoaderSplit

    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(700, 6, generator=generator), torch.randint(3, (700,), generator=generator)
    split = LoaderSplit(torch.utils.data.TensorDataset(inputs, labels))
    model = nn.Linear(6, 3)
    right = (model(inputs).argmax(1) == labels).numpy()
    batches = (Batch(*pair) for pair in split.batches(512))
    found = scored_by(make_measure("accuracy"), model, batches, split="validation", device=CPU, examples=True)
    assert found.examples is not None
    assert found.examples.tolist() == right.tolist()
    assert found.value == 100.0 * int(right.sum()) / 700


def test_loss_is_scikit_learns(given: tuple[Tensor, Tensor, Tensor]) -> None:
    outputs, _, labels = given
    score, error = _score(make_measure("loss"), outputs, labels)
    assert score == pytest.approx(log_loss(labels, softmax(outputs.double().numpy(), axis=1), labels=range(4)))
    each = -log_softmax(outputs.double().numpy(), axis=1)[np.arange(50), labels]
    assert error == pytest.approx(each.std(ddof=1) / np.sqrt(50))


def test_divergence_is_scipys_relative_entropy(given: tuple[Tensor, Tensor, Tensor]) -> None:
    outputs, base, labels = given
    p, q = (softmax(x.double().numpy(), axis=1) for x in (base, outputs))
    for kind in ("auto", "kl"):
        values = Divergence(kind=kind).values(outputs, Batch(outputs), base)  # type: ignore[arg-type]
        np.testing.assert_allclose(values, rel_entr(p, q).sum(1), rtol=1e-9)
    score, _ = _score(Divergence(), outputs, labels, base)
    assert score == pytest.approx(rel_entr(p, q).sum(1).mean())


def test_divergence_over_positions_is_the_mean_of_them(given: tuple[Tensor, Tensor, Tensor]) -> None:
    outputs, base, _ = given
    ours, theirs = outputs.reshape(10, 5, 4), base.reshape(10, 5, 4)
    p, q = (softmax(x.double().numpy(), axis=2) for x in (theirs, ours))
    expected = rel_entr(p, q).sum(2).mean(1)
    np.testing.assert_allclose(Divergence(kind="kl", axis=-1).values(ours, Batch(ours), theirs), expected, rtol=1e-9)
    turned = Divergence(kind="kl").values(ours.transpose(1, 2), Batch(ours), theirs.transpose(1, 2))
    np.testing.assert_allclose(turned, expected, rtol=1e-9)


def test_a_relative_error_is_that_of_numpy_over_all_tensors() -> None:
    generator = torch.Generator().manual_seed(1)
    base = {"image": torch.randn(6, 3, 4, 4, generator=generator), "count": torch.randn(6, generator=generator)}
    ours = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in base.items()}
    flat = [np.concatenate([x[n].double().numpy().reshape(6, -1) for n in ("image", "count")], 1) for x in (ours, base)]
    expected = np.linalg.norm(flat[0] - flat[1], axis=1) ** 2 / np.linalg.norm(flat[1], axis=1) ** 2
    np.testing.assert_allclose(Divergence().values(ours, Batch(base["image"]), base), expected, rtol=1e-12)


def test_agreement_counts_equal_decisions_whatever_the_labels(given: tuple[Tensor, Tensor, Tensor]) -> None:
    outputs, base, labels = given
    score, _ = _score(make_measure("agreement"), outputs, labels, base)
    assert score == 100 * accuracy_score(base.argmax(1), outputs.argmax(1))


def test_auto_is_settled_by_what_networks_return() -> None:
    kinds = {
        "kl": torch.zeros(4, 2),
        "relative_error": torch.zeros(4, 1),
    }
    for kind, outputs in kinds.items():
        assert Divergence().settled(outputs).kind == kind
    for outputs in (torch.zeros(4, 3, 5, 5), (torch.zeros(4, 2), torch.zeros(4, 2)), {"a": torch.zeros(4, 2)}):
        assert Divergence().settled(outputs).kind == "relative_error"
    assert Divergence(kind="relative_error").settled(torch.zeros(4, 2)).kind == "relative_error"
    assert (Divergence(kind="kl").unit, Divergence(kind="relative_error").unit) == ("nats", "")


def test_masked_classes_are_no_harm_and_a_class_that_only_the_base_has_is_an_error() -> None:
    base = torch.tensor([[1.0, 2.0, -torch.inf], [0.0, 1.0, 2.0]])
    ours = torch.tensor([[2.0, 1.0, -torch.inf], [0.0, 1.0, 2.0]])
    p, q = (softmax(x.double().numpy(), axis=1) for x in (base, ours))
    np.testing.assert_allclose(Divergence().values(ours, Batch(ours), base), rel_entr(p, q).sum(1), rtol=1e-9)
    values = Divergence().values(base, Batch(base), base)
    assert values.tolist() == [0.0, 0.0]
    with pytest.raises(EvaluationError, match="NaN or infinite for 1 of 2 examples, first for example 1"):
        _score(Divergence(), torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, -torch.inf]]), None, base)


@pytest.mark.parametrize(
    ("measure", "outputs", "base", "message"),
    [
        (Divergence(), torch.zeros(2, 3), torch.zeros(2, 4), "outputs of equal shapes"),
        (Divergence(), torch.zeros(2, 3).long(), torch.zeros(2, 3).long(), "floating-point tensors"),
        (Divergence(kind="kl"), torch.zeros(2, 1), torch.zeros(2, 1), "at least two classes along axis 1"),
        (Divergence(kind="kl", axis=2), torch.zeros(2, 3), torch.zeros(2, 3), "along axis 2"),
        (Divergence(kind="kl"), torch.ones(2, 4) / 4, torch.ones(2, 4) / 4, "returns probabilities"),
        (Divergence(kind="relative_error"), torch.ones(2, 4), torch.zeros(2, 4), "all 0 for 2 of 2"),
        (make_measure("agreement"), torch.zeros(2, 1), torch.zeros(2, 1), "choose the measure divergence"),
        (make_measure("agreement"), (torch.zeros(2, 3),), torch.zeros(2, 3), "type tuple"),
    ],
)
def test_outputs_that_a_measure_cannot_take_are_one_clear_error(
    measure: Measure, outputs: object, base: object, message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        measure.values(outputs, Batch(torch.zeros(2, 1)), base)


@pytest.mark.parametrize(
    ("chosen", "kind", "message"),
    [
        ("accurcy", RegistryError, "unknown measure 'accurcy'.*Did you mean 'accuracy'"),
        ({"name": "divergence", "settings": {"kind": "js"}}, ConfigError, "kind must be one of auto, kl"),
        ({"name": "divergence", "settings": {"axis": 0}}, ConfigError, "axis must be a whole number other than 0"),
        ({"name": "divergence", "settings": {"kin": "kl"}}, ConfigError, "Did you mean 'kind'"),
        ({"name": "loss", "settings": {"smoothing": 0.1}}, ConfigError, "it has no settings"),
        (3, ConfigError, "measure"),
    ],
)
def test_a_measure_that_cannot_be_made_is_one_clear_error(chosen: object, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        make_measure(chosen)  # type: ignore[arg-type]


class Positional(nn.Module):
    """Two positional inputs."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([x.sum(1), y.sum(1)], 1)


def test_inputs_of_any_nesting_are_handed_on() -> None:
    x, y = torch.randn(6, 2), torch.randn(6, 3)
    for inputs in ((x, y), {"y": y, "x": x}):
        score = scored_by(
            Divergence(), Positional(), [Batch(inputs)], split="a", device=CPU, base=BaseOutputs(Positional())
        )
        assert score.value == 0.0


def test_what_the_base_network_returns_is_computed_once_as_far_as_memory_allows() -> None:
    class Counted(nn.Module):
        calls: list[int] = []  # noqa: RUF012 - shared by copies on purpose

        def forward(self, x: Tensor) -> Tensor:
            self.calls.append(len(x))
            return x

    batches = [Batch(torch.randn(8, 4)) for _ in range(3)]
    model = nn.Linear(4, 4)
    expected = None
    for limit, calls in ((10**6, 3), (2 * 8 * 4 * 4, 2 + 2), (0, 6)):
        Counted.calls.clear()
        base = BaseOutputs(Counted(), kept_bytes=limit)
        scores = [scored_by(Divergence(), model, batches, split="a", device=CPU, base=base) for _ in range(2)]
        assert len(Counted.calls) == calls
        assert scores[0] == scores[1] == (expected or scores[0])
        expected = scores[0]


def test_a_measure_need_not_be_a_mean_nor_know_its_noise() -> None:
    class Worst(Measure):
        name, needs_targets, higher_is_better = "worst error", False, False

        def values(self, outputs: Tensor, batch: Batch, base: object) -> Tensor:
            return outputs.abs().amax(1)

        def combine(self, values: np.ndarray) -> tuple[float, float | None]:
            return float(values.max()), None

    x = torch.randn(9, 3)
    score = scored_by(Worst(), nn.Identity(), [Batch(x[:4]), Batch(x[4:])], split="a", device=CPU, examples=True)
    assert score.value == -float(x.abs().max())
    assert score.standard_error is None
    assert score.examples is not None
    assert score.examples.tolist() == (-x.abs().amax(1)).tolist()


def test_a_measure_that_gives_no_value_per_example_is_one_clear_error() -> None:
    class Mean(Measure):
        name = "mean"

        def values(self, outputs: Tensor, batch: Batch, base: object) -> Tensor:
            return outputs.mean()

    with pytest.raises(EvaluationError, match=r"gave values of shape \(\) for 4 examples; it must give one for each"):
        scored_by(Mean(), nn.Identity(), [Batch(torch.zeros(4, 2))], split="a", device=CPU)


def test_tensors_without_a_row_for_each_example_do_not_count() -> None:
    class WithAuxiliary(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return x + self.training, x.square().mean(), torch.full((3,), torch.nan)

    x = torch.randn(8, 2)
    base = BaseOutputs(WithAuxiliary())
    assert scored_by(Divergence(), WithAuxiliary(), [Batch(x)], split="a", device=CPU, base=base).value == 0.0


def test_what_a_network_draws_does_not_depend_on_what_was_kept() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn(x.shape)

    batches = [Batch(torch.randn(8, 3)) for _ in range(3)]
    kept, fresh = BaseOutputs(Noisy()), BaseOutputs(Noisy(), kept_bytes=0)
    scores = [
        scored_by(Divergence(), Noisy(), batches, split="a", device=CPU, base=base) for base in (kept, kept, fresh)
    ]
    assert scores[0] == scores[1] == scores[2]


def test_a_measure_that_fails_is_named() -> None:
    class Broken(Measure):
        name = "broken"

        def values(self, outputs: Tensor, batch: Batch, base: object) -> Tensor:
            raise KeyError("mask")

    with pytest.raises(EvaluationError, match="measure 'broken' fails: KeyError: 'mask'"):
        scored_by(Broken(), nn.Identity(), [Batch(torch.zeros(4, 2))], split="a", device=CPU)


def test_double_precision_and_half_precision_are_measured_alike() -> None:
    logits, base = torch.randn(20, 5), torch.randn(20, 5)
    exact = Divergence().values(logits.double(), Batch(logits), base.double())
    rough = Divergence().values(logits.half(), Batch(logits), base.half())
    assert exact.dtype == rough.dtype == torch.float64
    torch.testing.assert_close(exact, rough, rtol=0.02, atol=0.01)
    by_torch = F.kl_div(logits.log_softmax(1), base.softmax(1), reduction="batchmean")
    torch.testing.assert_close(exact.mean().float(), by_torch)


class _Given(nn.Module):
    """Answers what it was given, whatever the inputs: row numbers."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", torch.nan_to_num(rows, neginf=-1e30))
        self.masked = rows.isneginf()

    def forward(self, x: Tensor) -> Tensor:
        at = x.long()[:, 0]
        return torch.where(self.masked[at], -torch.inf, self.rows[at])


def _score(
    measure: Measure, outputs: Tensor, labels: Tensor | None, base: Tensor | None = None
) -> tuple[float, float | None]:
    """Natural sign, over batches of 16."""
    numbers = torch.arange(float(len(outputs)))[:, None]
    parts = [slice(i, i + 16) for i in range(0, len(outputs), 16)]
    batches = [Batch(numbers[part], None if labels is None else labels[part]) for part in parts]
    reference = None if base is None else BaseOutputs(_Given(base))
    score = scored_by(measure, _Given(outputs), batches, split="validation", device=CPU, base=reference)
    return measure.scale.turned(score.value), score.standard_error
