from __future__ import annotations

import pytest

from autoprune.config.parts import NamedPart, PartOptions
from autoprune.testing.protocols import ProtocolContract
from autoprune.training import PROTOCOLS


class TestEachProtocol(ProtocolContract):
    @pytest.fixture(params=PROTOCOLS.names())
    def protocol(self, request: pytest.FixtureRequest) -> PartOptions:
        return NamedPart(name=request.param)
