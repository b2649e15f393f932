from __future__ import annotations

import importlib.util

import pytest

from autoprune.config.settings import bind
from autoprune.export import EXPORTERS
from autoprune.export.base import Exporter
from autoprune.testing.exporters import ExporterContract

GENERAL = [name for name in EXPORTERS.names() if name != "transformers"]
"""Without the one that refuses all networks but those of its library: test_transformers.py."""
NEEDS = {"onnx": ("onnx", "onnxscript", "onnxruntime")}


@pytest.mark.parametrize("name", GENERAL, scope="class")
class TestExporters(ExporterContract):
    @pytest.fixture
    def exporter(self, name: str) -> Exporter:
        for package in NEEDS.get(name, ()):
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"{package} is not installed")
        made: Exporter = bind(EXPORTERS, name, {})()
        return made
