"""Every criterion on whole networks."""

from __future__ import annotations

import pytest

from autoprune.config.parts import ChosenPart
from autoprune.importance import CRITERIA
from autoprune.testing.network_criteria import NetworkCriterionContract

SETTINGS = {"obd": {"probes": 200}}
"""Enough for laws about estimates."""


class TestEveryCriterion(NetworkCriterionContract):
    @pytest.fixture(params=[name for name in CRITERIA.names() if not getattr(CRITERIA.get(name), "blind", False)])
    def criterion(self, request: pytest.FixtureRequest) -> ChosenPart:
        return {"name": request.param, "settings": SETTINGS.get(request.param, {})}


class TestControls(NetworkCriterionContract):
    reads_weights = False

    @pytest.fixture(params=["random", "first_k"])
    def criterion(self, request: pytest.FixtureRequest) -> ChosenPart:
        name: str = request.param
        return name
