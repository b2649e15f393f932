"""What the base network answers for single examples, kept where the same examples come again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch

KEPT_BYTES = 256 * 2**20
"""So much is kept at most."""


@final
class TeacherMemory:
    """Answers by the content of examples, so that it holds whatever order they come in.

    It keeps all answers or none: more than `limit` bytes for all examples, or examples that do not come again as they
    were (augmented ones), and it keeps nothing. A batch of which all answers are known is not asked for again. All
    batches are asked for at the size of the largest one so far, filled up with examples of their own, as kernels may
    round otherwise at another size: answers are the same numbers whether they were kept or not.

    Args:
        examples: how many there are.
        limit: bytes.
    """

    def __init__(self, examples: int, *, limit: int = KEPT_BYTES) -> None:
        self._examples, self._limit = examples, limit
        self._known: dict[bytes, list[Tensor]] = {}
        self._spec: Any = None
        self._size = self._seen = self._met = 0
        self.open = True

    def recall(self, batch: Batch, ask: Callable[[Batch], Any]) -> Any:
        """The answer to a batch.

        Args:
            batch: on any device; of one whose examples differ in size nothing is kept.
            ask: the teacher; what it returns has its examples along the first axis of every tensor.
        """
        if batch.is_ragged:
            return ask(batch)
        self._size = max(self._size, len(batch))
        if not self.open:
            return _asked(batch, self._size, ask)
        keys = _keys(batch)
        if self._known and all(key in self._known for key in keys):
            self._count(keys)
            device = _device_of(batch)
            rows = zip(*(self._known[key] for key in keys), strict=True)
            return pytree.tree_unflatten([torch.stack(list(row)).to(device) for row in rows], self._spec)
        self._count(keys)
        answer = _asked(batch, self._size, ask)
        if self.open:
            self._keep(keys, answer)
        return answer

    def _count(self, keys: list[bytes]) -> None:
        """Close where a second look at as many examples as there are meets less than half of them again."""
        self._met += sum(key in self._known for key in keys)
        self._seen += len(keys)
        if self._seen >= 2 * self._examples and self._met < self._seen / 4:
            self._close()

    def _keep(self, keys: list[bytes], answer: Any) -> None:
        leaves, spec = pytree.tree_flatten(answer)
        fits = leaves and all(isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == len(keys) for leaf in leaves)
        if not fits or sum(leaf.nbytes for leaf in leaves) / len(keys) * self._examples > self._limit:
            self._close()
            return
        self._spec = spec
        for row, key in enumerate(keys):
            if key not in self._known and len(self._known) < self._examples:
                self._known[key] = [leaf[row].detach().to("cpu", copy=True) for leaf in leaves]

    def _close(self) -> None:
        self.open = False
        self._known = {}


def _asked(batch: Batch, size: int, ask: Callable[[Batch], Any]) -> Any:
    """The answer to a batch that is filled up to a size."""
    n = len(batch)
    if n == size:
        return ask(batch)

    def filled(leaf: Tensor) -> Tensor:
        if not leaf.ndim or len(leaf) != n:
            return leaf
        return leaf[torch.arange(size, device=leaf.device) % n]

    answer = ask(Batch(pytree.tree_map_only(Tensor, filled, batch.inputs)))
    return pytree.tree_map_only(Tensor, lambda leaf: leaf[:n] if leaf.ndim and len(leaf) == size else leaf, answer)


def _keys(batch: Batch) -> list[bytes]:
    """One per example: a digest of all that belongs to it among the inputs."""
    leaves = [leaf.detach().cpu().contiguous() for leaf in pytree.tree_leaves(batch.inputs) if isinstance(leaf, Tensor)]
    n = len(batch)
    rows = [leaf.reshape(n, -1).view(torch.uint8).numpy() for leaf in leaves if leaf.ndim and len(leaf) == n]
    shared = [leaf.reshape(-1).view(torch.uint8).numpy() for leaf in leaves if not leaf.ndim or len(leaf) != n]
    digests = [hashlib.blake2b(digest_size=16) for _ in range(n)]
    kinds = str([(leaf.dtype, leaf.shape[1:]) for leaf in leaves]).encode()
    for digest in digests:
        digest.update(kinds)
    for one in shared:
        for digest in digests:
            digest.update(one.data)
    for leaf in rows:
        for digest, row in zip(digests, leaf, strict=True):
            digest.update(row.data)
    return [digest.digest() for digest in digests]


def _device_of(batch: Batch) -> torch.device:
    found = next((leaf.device for leaf in pytree.tree_leaves(batch.inputs) if isinstance(leaf, Tensor)), None)
    return found or torch.device("cpu")
