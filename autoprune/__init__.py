"""AutoML search over pruned architectures: per-layer widths under a budget, compared honestly with uniform pruning.

    import autoprune

    result = autoprune.search(model, example_input, constraints={"flops": "50%"}, data="cifar10")
    print(result.verdict.sentence)

Names are imported when they are first used, so that `import autoprune` and the command line stay fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from autoprune._version import __version__
from autoprune.deprecation import install
from autoprune.errors import AutopruneError

if TYPE_CHECKING:
    from autoprune.api.compare import compare
    from autoprune.api.result import SearchResult
    from autoprune.api.search import Space, finish, resume, search, sweep, trace
    from autoprune.config.space import SpaceOptions
    from autoprune.controllers.base import Controller, Trial
    from autoprune.cost.budget.repair import BudgetedSpace
    from autoprune.evaluators.base import Evaluator
    from autoprune.export.architecture import load

_HOMES = {
    "search": "autoprune.api.search",
    "sweep": "autoprune.api.search",
    "resume": "autoprune.api.search",
    "finish": "autoprune.api.search",
    "compare": "autoprune.api.compare",
    "trace": "autoprune.api.space",
    "load": "autoprune.export.architecture",
    "SearchResult": "autoprune.api.result",
    "Space": "autoprune.api.space",
    "SpaceOptions": "autoprune.config.space",
    "BudgetedSpace": "autoprune.cost.budget.repair",
    "Controller": "autoprune.controllers.base",
    "Trial": "autoprune.controllers.base",
    "Evaluator": "autoprune.evaluators.base",
}

__all__ = [
    "AutopruneError",
    "BudgetedSpace",
    "Controller",
    "Evaluator",
    "SearchResult",
    "Space",
    "SpaceOptions",
    "Trial",
    "__version__",
    "compare",
    "finish",
    "load",
    "resume",
    "search",
    "sweep",
    "trace",
]


install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autoprune' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
