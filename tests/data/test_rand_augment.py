"""RandAugment: torchvision's changes of bytes, drawn for each image, by seed; one clear error without torchvision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from autoprune.config.training import RandAugmentOptions, Recipe
from autoprune.data import rand_augment as module
from autoprune.data import splits_from
from autoprune.data.base import Augmentation, TensorSplit
from autoprune.data.rand_augment import rand_augment
from autoprune.errors import ConfigError
from autoprune.tasks.classification import ClassificationTask
from autoprune.testing.generators import global_generators
from autoprune.training.recipe import check_recipe

IMAGES = torch.randint(256, (12, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def split() -> TensorSplit:
    own = Augmentation(pad=0, flip=False)
    return TensorSplit(IMAGES, torch.arange(12), mean=[0.0] * 3, std=[1.0] * 3, augmentation=own)


def test_images_are_changed_one_by_one_and_the_same_seed_gives_the_same() -> None:
    try:
        from torchvision.transforms.v2 import RandAugment
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"RandAugment is torchvision's, which cannot be imported: {error}")

    generators = global_generators()
    change = rand_augment(RandAugmentOptions(num_ops=1, magnitude=9), own=False)
    first, again, other = (next(split().batches(12, seed=s, augment=change)) for s in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0][first[1].argsort()], other[0][other[1].argsort()])
    assert global_generators() == generators
    drawn = torch.Generator().manual_seed(5)
    found = change(IMAGES, drawn)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(5))))
        by_torchvision = RandAugment(1, 9)
        assert torch.equal(found, torch.stack([by_torchvision(image) for image in IMAGES]))


def test_without_torchvision_it_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(module, "import_module", missing)
    with pytest.raises(ConfigError, match=r"rand_augment needs torchvision.*install it.*or leave rand_augment out"):
        check_recipe(Recipe(rand_augment={"num_ops": 2}))


def test_data_that_are_no_images_in_bytes_are_one_clear_error() -> None:
    pair = TensorDataset(torch.zeros(4, 1, 6, 6), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(ConfigError, match=r"rand_augment changes images in bytes.*put torchvision's RandAugment into"):
        ClassificationTask(splits_from((pair, pair)), Recipe(rand_augment={}), device=torch.device("cpu"))
