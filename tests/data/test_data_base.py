import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from autoprune.data.base import Augmentation, LoaderSplit, Split, TensorSplit
from autoprune.errors import ConfigError, DataError

N = 50


def tensor_split(n: int = N, *, pad: int = 2, flip: bool = True) -> TensorSplit:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(n, dtype=torch.uint8)
    augmentation = Augmentation(pad=pad, flip=flip)
    return TensorSplit(images, torch.arange(n), mean=(0.0,) * 3, std=(1.0,) * 3, augmentation=augmentation)


class NoisyDataset(Dataset[tuple[Tensor, int]]):
    """Draws from the global generator, as torchvision's transforms do."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3, 8, 8), float(index)) + 0.1 * torch.rand(3, 8, 8), index


SPLITS = {
    "tensors": tensor_split,
    "data set": lambda: LoaderSplit(NoisyDataset()),
    "loader": lambda: LoaderSplit(DataLoader(NoisyDataset(), 16, shuffle=True)),
    "loader with a generator": lambda: LoaderSplit(
        DataLoader(NoisyDataset(), 16, shuffle=True, generator=torch.Generator().manual_seed(3))
    ),
}


@pytest.fixture(params=SPLITS)
def split(request: pytest.FixtureRequest) -> Split:
    return SPLITS[request.param]()


def read(split: Split, **options) -> tuple[Tensor, Tensor]:
    inputs, targets = zip(*split.batches(16, **options), strict=True)
    return torch.cat(inputs), torch.cat(targets)


class TestEverySplit:
    def test_each_example_comes_once(self, split: Split):
        for options in ({}, {"seed": 1}, {"seed": 1, "augment": True}):
            assert sorted(read(split, **options)[1].tolist()) == list(range(N))

    @pytest.mark.parametrize("augment", [False, True])
    def test_same_seed_same_batches_however_often_it_is_read(self, split: Split, augment: bool):
        first = read(split, seed=4, augment=augment)
        read(split, seed=5, augment=augment)
        again = read(split, seed=4, augment=augment)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])

    def test_another_seed_is_another_order(self, split: Split):
        assert not torch.equal(read(split, seed=1)[1], read(split, seed=2)[1])

    def test_reading_leaves_the_global_random_state_alone(self, split: Split):
        before = torch.get_rng_state()
        for _ in split.batches(16, seed=1):
            assert torch.equal(torch.get_rng_state(), before)
        assert split.fingerprint
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("limit", [1, 16, 17, N, N + 9])
    def test_a_limit_is_a_number_of_examples(self, split: Split, limit: int):
        assert len(read(split, limit=limit)[1]) == min(limit, N)

    def test_the_fingerprint_is_of_the_content(self, split: Split, request: pytest.FixtureRequest):
        again = SPLITS[request.node.callspec.params["split"]]()
        assert split.fingerprint == split.fingerprint == again.fingerprint

    @pytest.mark.parametrize("options", [{"limit": 0}, {"batch_size": 0}])
    def test_nothing_below_one(self, split: Split, options: dict[str, int]):
        with pytest.raises(ConfigError, match="at least 1, got 0"):
            next(split.batches(**{"batch_size": 4, **options}))


@pytest.mark.parametrize("make", [tensor_split, SPLITS["data set"]])
def test_a_limit_takes_the_first_examples_also_when_shuffled(make):
    assert sorted(read(make(), seed=3, limit=20)[1].tolist()) == list(range(20))
    assert read(make(), limit=20)[1].tolist() == list(range(20))


def test_a_loaders_own_generator_is_given_back():
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    read(LoaderSplit(DataLoader(NoisyDataset(), 16, shuffle=True, generator=generator)), seed=1)
    assert torch.equal(generator.get_state(), before)


def test_augmented_images_keep_their_label_and_are_shifts_or_mirrors():
    split, pad = tensor_split(), 2
    clean = read(split)[0]
    augmented, labels = read(split, seed=6, augment=True)
    changed = 0
    for image, label in zip(augmented, labels, strict=True):
        padded = torch.nn.functional.pad(clean[label], (pad,) * 4)
        views = [padded[:, y : y + 8, x : x + 8] for y in range(2 * pad + 1) for x in range(2 * pad + 1)]
        assert any(torch.equal(image, v) or torch.equal(image, v.flip(2)) for v in views)
        changed += not torch.equal(image, clean[label])
    assert changed > N // 2


def test_no_pad_and_no_flip_changes_nothing():
    split = tensor_split(pad=0, flip=False)
    augmented, labels = read(split, seed=6, augment=True)
    assert torch.equal(augmented, read(split)[0][labels])


def test_tensor_split_normalises_by_its_mean_and_deviation():
    images = torch.randint(0, 256, (400, 2, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    scaled = images.double() / 255
    mean, std = scaled.mean((0, 2, 3)), scaled.std((0, 2, 3), correction=0)
    augmentation = Augmentation(pad=0, flip=False)
    labels = torch.zeros(400, dtype=torch.int64)
    split = TensorSplit(images, labels, mean=mean.tolist(), std=std.tolist(), augmentation=augmentation)
    seen = read(split)[0]
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-5, rtol=0)


def test_one_pixel_changes_the_fingerprint():
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    options = {"mean": (0.0,), "std": (1.0,), "augmentation": Augmentation(pad=0, flip=False)}
    changed = images.clone()
    changed[3, 0, 1, 1] = 1
    prints = {TensorSplit(pixels, labels, **options).fingerprint for pixels in (images, changed, images.clone())}
    assert len(prints) == 2


def test_augmentation_without_a_seed_is_refused():
    with pytest.raises(ConfigError, match="pass a seed"):
        next(tensor_split().batches(4, augment=True))


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2)),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(0, 3, 4, 4, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)),
    ],
)
def test_malformed_images_are_refused(images: Tensor, labels: Tensor):
    with pytest.raises(DataError, match="labels"):
        TensorSplit(images, labels, mean=(0.0,), std=(1.0,), augmentation=Augmentation(pad=0, flip=False))


def test_sources_without_length_or_pairs_are_refused():
    class Endless(IterableDataset[Tensor]):
        def __iter__(self):
            while True:
                yield torch.zeros(2)

    for source in (Endless(), DataLoader(Endless())):
        with pytest.raises(DataError, match="Endless has no length"):
            LoaderSplit(source)
    with pytest.raises(DataError, match="empty"):
        LoaderSplit(TensorDataset(torch.zeros(0, 2)))
    with pytest.raises(DataError, match="pair of tensors"):
        next(LoaderSplit(TensorDataset(torch.zeros(3, 2))).batches(2))
