import os
from pathlib import Path

import pytest


@pytest.fixture
def original_data() -> Path:
    folder = os.environ.get("AUTOPRUNE_DATA")
    if not folder:
        pytest.skip("AUTOPRUNE_DATA is not set: the original CIFAR-10 and Fashion-MNIST files are not here")
    return Path(folder)
