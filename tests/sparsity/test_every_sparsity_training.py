"""Every sparsity training keeps the contract."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from autoprune.config.parts import NamedPart
from autoprune.errors import ConfigError
from autoprune.sparsity import SPARSITY
from autoprune.sparsity.base import make_sparsity
from autoprune.testing.sparsity import SparsityContract

OTHERS: dict[str, dict[str, Any]] = {
    "autopruner": {"per": "group"},
    "implicit": {"optimizer": "adagrad"},
    "group_lasso": {"members": "written", "step": "gradient", "raised": 3.0},
    "soft_filter": {"by": "fpgm"},
}
"""A second way of a method."""

CASES = [NamedPart(name=name) for name in SPARSITY.names()]
CASES += [NamedPart(name=name, settings=settings) for name, settings in OTHERS.items()]


class TestEverySparsityTraining(SparsityContract):
    @pytest.fixture(params=CASES, ids=lambda part: part.label)
    def method(self, request: pytest.FixtureRequest) -> NamedPart:
        part: NamedPart = request.param
        return part


@pytest.mark.parametrize("name", SPARSITY.names())
def test_settings_out_of_range_are_refused_by_name(name: str) -> None:
    for setting, parameter in inspect.signature(SPARSITY.get(name)).parameters.items():
        if isinstance(parameter.default, bool):
            continue
        for wrong in ("zzz", -1):
            with pytest.raises(ConfigError, match=rf"'{name}': {setting} must be"):
                make_sparsity(NamedPart(name=name, settings={setting: wrong}))
