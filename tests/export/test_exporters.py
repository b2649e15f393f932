from __future__ import annotations

import importlib.util

import pytest

from autoprune.config.settings import bind
from autoprune.export import EXPORTERS
from autoprune.export.base import Exporter
from autoprune.testing.exporters import ExporterContract

NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime")}


@pytest.mark.parametrize("name", EXPORTERS.names(), scope="class")
class TestExporters(ExporterContract):
    @pytest.fixture
    def exporter(self, name: str) -> Exporter:
        for package in NEEDS.get(name, ()):
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed")
        made: Exporter = bind(EXPORTERS, name, {})()
        return made
