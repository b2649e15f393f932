"""A network whose answers for one batch are known already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.errors import EvaluationError


@final
class Answers(nn.Module):
    """Answers for the inputs of one batch with the outputs that are known.

    Args:
        outputs: the answer.
        inputs: of the batch.
        label: the objective that asks, for messages.
        features: name of a module -> what it gave on the way.
    """

    def __init__(self, outputs: Any, inputs: Any, label: str, features: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self._outputs, self._label = (outputs,), label  # in a tuple: outputs may be what a module would register
        self._known = {id(leaf) for leaf in pytree.tree_leaves(inputs)}
        self.features = dict(features or {})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs.

        Raises:
            EvaluationError: for other inputs than those of the batch.
        """
        if any(id(leaf) not in self._known for leaf in pytree.tree_leaves((args, kwargs))):
            raise EvaluationError(
                f"objective {self._label!r} runs the network on other inputs than those of the batch, of which alone "
                f"the outputs are known; choose a criterion without gradients, or a training without mixup and cutmix"
            )
        return self._outputs[0]
