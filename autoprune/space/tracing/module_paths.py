"""Which module made a call: the exporter names what forward takes out of a sliced container by the slice."""

from __future__ import annotations

import re

from torch import fx, nn

_SLICE = re.compile(r"slice\((-?\d+|None), (-?\d+|None), (-?\d+|None)\)")


def name_modules(graph: fx.Graph, model: nn.Module) -> None:
    """Let every call name modules that the model has: `blocks.slice(1, None, None).0.drop` is `blocks.1.drop`."""
    known = {path for path, _ in model.named_modules(remove_duplicate=False)}
    for node in graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if stack and any(path not in known for path, _ in stack.values()):
            node.meta["nn_module_stack"] = {k: (real_path(model, path), kind) for k, (path, kind) in stack.items()}


def real_path(model: nn.Module, path: str) -> str:
    """The path of the module that is meant; as far as it leads, where it leads nowhere."""
    real: list[str] = []
    module = model
    inside: dict[str, str] | None = None  # name in a sliced container -> name in the model's
    for piece in path.split(".") if path else ():
        cut = _SLICE.fullmatch(piece)
        if cut:
            names = list(inside.items()) if inside is not None else [(name, name) for name in module._modules]
            names = names[slice(*(None if n == "None" else int(n) for n in cut.groups()))]
            renumbered = isinstance(module, nn.ModuleList)
            inside = {str(i) if renumbered else name: own for i, (name, own) in enumerate(names)}
            continue
        name = piece if inside is None else inside.get(piece, "")
        child = module._modules.get(name)
        if child is None:
            break
        real.append(name)
        module, inside = child, None
    return ".".join(real)
