import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from autoprune.data import splits_from
from autoprune.data.base import Augmentation, Split, TensorSplit
from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.measures.accuracy import Accuracy
from autoprune.tasks.scoring import BATCH, scored_by
from autoprune.training.loop import train
from autoprune.training.recipe import Recipe

CPU = torch.device("cpu")


def accuracy(model: nn.Module, split: Split, *, device=CPU, batch_size: int = BATCH, limit: int | None = None) -> float:
    batches = (Batch(*pair) for pair in split.batches(batch_size, limit=limit))
    return scored_by(Accuracy(), model, batches, split="validation", device=device).value


def easy_split(n: int = 96) -> TensorSplit:
    """Class 1 is bright on the left, class 0 on the right."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    images = torch.randint(0, 100, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[labels == 1, :, :, :4] += 100
    images[labels == 0, :, :, 4:] += 100
    return TensorSplit(images, labels, mean=(0.4,), std=(0.3,), augmentation=Augmentation(pad=1, flip=False))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Dropout(0.1),
            nn.Flatten(),
            nn.Linear(256, 2),
        )


def state(model: nn.Module) -> list[Tensor]:
    return list(model.state_dict().values())


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def trained(recipe: Recipe, seed: int = 0) -> nn.Module:
    model = network()
    train(model, easy_split(), recipe, seed=seed, device=CPU)
    return model


class TestTrain:
    @pytest.mark.parametrize(
        "options",
        [{}, {"schedule": "step", "nesterov": False}, {"warmup_epochs": 1, "label_smoothing": 0.1}, {"amp": True}],
    )
    def test_learns_an_easy_task_and_reports_it(self, options: dict[str, object]):
        model, seen = network(), []
        recipe = Recipe(epochs=4, lr=0.05, batch_size=16, **options)
        records = train(model, easy_split(), recipe, seed=1, device=CPU, progress=lambda *now: seen.append(now))
        assert accuracy(model, easy_split(), device=CPU) == 100.0
        assert records[-1].loss < records[0].loss
        assert seen == [(record.epoch, 4, record.loss) for record in records]
        assert [record.epoch for record in records] == [1, 2, 3, 4]

    def test_same_seed_same_weights_another_seed_others(self):
        recipe = Recipe(epochs=2, batch_size=16)
        assert same(state(trained(recipe, 3)), state(trained(recipe, 3)))
        assert not same(state(trained(recipe, 3)), state(trained(recipe, 4)))

    def test_the_global_random_state_neither_matters_nor_changes(self):
        recipe = Recipe(epochs=1, batch_size=16)
        with torch.random.fork_rng():
            torch.manual_seed(77)
            before = torch.get_rng_state()
            first = trained(recipe)
            assert torch.equal(torch.get_rng_state(), before)
            torch.manual_seed(78)
            assert same(state(first), state(trained(recipe)))

    def test_channels_last_trains_the_same_network_and_leaves_plain_memory(self):
        plain, last = network(), network()
        for model in (plain, last):
            model[4] = nn.Identity()  # dropout draws in the order of the memory
            recipe = Recipe(epochs=1, lr=0.01, batch_size=16, channels_last=model is last)
            train(model, easy_split(), recipe, seed=0, device=CPU)
        for a, b in zip(state(plain), state(last), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
            assert b.is_contiguous()

    def test_one_step_is_torch_sgd_on_all_parameters(self):
        split = easy_split(16)
        ours, reference = network(), network()
        ours[4] = reference[4] = nn.Identity()  # no dropout
        recipe = Recipe(epochs=1, lr=0.2, batch_size=16, weight_decay=0.01, augment=False, label_smoothing=0.2)
        train(ours, split, recipe, seed=5, device=CPU)
        half_way = 0.1  # the cosine in the middle of the only step
        optimizer = torch.optim.SGD(reference.parameters(), half_way, 0.9, weight_decay=0.01, nesterov=True)
        inputs, targets = next(split.batches(16, seed=1))
        nn.functional.cross_entropy(reference(inputs), targets, label_smoothing=0.2).backward()
        optimizer.step()
        for a, b in zip(state(ours), state(reference), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)

    def test_a_leftover_of_one_example_is_skipped(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        train(model, easy_split(33), Recipe(epochs=1, batch_size=16), seed=0, device=CPU)
        assert model[2].num_batches_tracked == 2

    def test_batches_of_one_example_are_all_read_whatever_the_recipe_says_of_their_size(self):
        """A loader of the user's own has a size of its own."""
        images, labels = torch.randn(20, 1, 4, 4), torch.arange(20) % 2
        seen = []

        class Seen(nn.Sequential):
            def forward(self, x: Tensor) -> Tensor:
                seen.append(len(x))
                return super().forward(x)

        loader = DataLoader(TensorDataset(images, labels), batch_size=1)
        split = splits_from((loader, TensorDataset(images, labels))).train
        train(Seen(nn.Flatten(), nn.Linear(16, 2)), split, Recipe(epochs=1, accumulate_batches=4), seed=0, device=CPU)
        assert sum(seen) >= 20

    def test_divergence_is_an_error_with_a_remedy(self):
        with pytest.raises(EvaluationError, match=r"in epoch \d of 6 .*lower lr"):
            trained(Recipe(epochs=6, lr=1e6, batch_size=16))

    def test_the_network_is_left_in_eval_mode(self):
        assert not any(module.training for module in trained(Recipe(epochs=1)).modules())


class TestAccuracy:
    def test_is_the_share_of_right_answers_in_percent(self):
        class Guess(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.tensor([[0.0, 1.0]]).expand(len(x), 2)

        split = TensorSplit(
            torch.zeros(8, 1, 2, 2, dtype=torch.uint8),
            torch.tensor([1, 1, 0, 1, 0, 0, 0, 0]),
            mean=(0.0,),
            std=(1.0,),
            augmentation=Augmentation(pad=0, flip=False),
        )
        assert accuracy(Guess(), split, device=CPU, batch_size=3) == 37.5
        assert accuracy(Guess(), split, device=CPU, batch_size=3, limit=4) == 75.0

    def test_leaves_weights_statistics_flags_and_random_state_alone(self):
        model = network()
        model[1].eval()
        before, flags = copy.deepcopy(state(model)), [module.training for module in model.modules()]
        random = torch.get_rng_state()
        accuracy(model, easy_split(), device=CPU)
        assert same(state(model), before)
        assert [module.training for module in model.modules()] == flags
        assert torch.equal(torch.get_rng_state(), random)


class Breaks(nn.Module):
    """Outputs of bright pictures are what they should not be; one class is masked, as it may be."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.linear, self.value, self.calls = nn.Linear(64, 3), value, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out = self.linear(x.flatten(1))
        out = torch.where((x.mean((1, 2, 3)) > 0.5)[:, None], self.value, out)
        return torch.cat([out[:, :2], torch.full_like(out[:, :1], -torch.inf)], dim=1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_no_numbers_are_an_error_that_names_the_first_example(value: float):
    images, labels = torch.zeros(40, 1, 8, 8, dtype=torch.uint8), torch.arange(40) % 2
    how = Augmentation(pad=0, flip=False)
    split = TensorSplit(images, labels, mean=(0.0,), std=(1.0,), augmentation=how)
    accuracy(Breaks(value), split, device=CPU, batch_size=8)
    images[21], images[30] = 255, 255
    model = Breaks(value)
    with pytest.raises(EvaluationError, match="for 2 of 40 examples, first for example 21 as read"):
        accuracy(model, split, device=CPU, batch_size=8)
    assert model.calls == 0  # a copy was scored


class Column(nn.Module):
    """One column, or a picture of classes."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.linear, self.shape = nn.Linear(64, 2 * math.prod(shape)), shape

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)).view(len(x), 2, *self.shape)


def test_outputs_of_another_shape_are_an_error_in_scoring_and_in_training():
    for work in (lambda m: accuracy(m, easy_split(), device=CPU), lambda m: train_once(m)):
        with pytest.raises(EvaluationError, match=r"returned a tensor of shape \(\d+, 2, 4, 4\) for targets of shape"):
            work(Column((4, 4)))
        with pytest.raises(EvaluationError, match="class numbers from 0 to 1 for a network of 1 outputs"):
            work(nn.Sequential(nn.Flatten(), nn.Linear(64, 1)))


def train_once(model: nn.Module) -> None:
    train(model, easy_split(), Recipe(epochs=1, batch_size=16, lr=0.01), seed=0, device=CPU)


def test_a_training_whose_loss_is_finite_and_whose_network_is_not_has_failed():
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(64, 2), nn.BatchNorm1d(2)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                self.norm(x.flatten(1)[:, :2] * 1e25)
            return self.linear(x.flatten(1))

    with pytest.raises(EvaluationError, match=r"the trained network holds .*'norm.running_var'"):
        train_once(Hidden())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", [{}, {"amp": True}, {"amp": True, "channels_last": True}])
def test_training_on_cuda_learns_repeats_and_leaves_the_random_state(options: dict[str, bool]):
    device = torch.device("cuda")
    torch.rand(1, device=device)
    before = torch.cuda.get_rng_state()
    models = [network(), network()]
    for model in models:
        train(model, easy_split(), Recipe(epochs=4, lr=0.05, batch_size=16, **options), seed=1, device=device)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert accuracy(models[0], easy_split(), device=device) == 100.0
    for a, b in zip(*map(state, models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)
    assert all(tensor.is_contiguous() for tensor in state(models[0]))
