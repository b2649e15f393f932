"""Which code an export may run: factories of a list of packages, looked up without a step outside of them.

An export names the function that builds its network, and so would run whatever a stranger wrote there. Only classes
that are modules and functions that return them are called, of autoprune's zoo, of three public libraries, and of the
packages that the caller names; where they are from is asked of the object, not of its path.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from types import FunctionType, ModuleType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from torch import nn

from autoprune.errors import ConfigError, RunError, blame, suggest
from autoprune.export.arguments import check_plain, described_call, library_arguments
from autoprune.registry import load_object
from autoprune.zoo import ZOO

LIBRARIES = {
    "autoprune.zoo": ("autoprune.zoo",),
    "torchvision": ("torchvision.models",),
    "timm": ("timm", "timm.models"),
    "transformers": ("transformers", "transformers.models"),
}
"""Package -> where in it factories are looked for; below the last one, too."""

_NAME = r"[A-Za-z][A-Za-z0-9_]*"
_PATH = re.compile(rf"(?P<module>{_NAME}(?:\.{_NAME})*):(?P<object>{_NAME}(?:\.{_NAME})*)", re.ASCII)
_PACKAGE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)

Factory = Callable[..., Any]


def trusted_factory(
    factory: object, arguments: object, *, packages: Sequence[str] = (), trust: bool = False, source: str
) -> tuple[Factory, dict[str, Any]]:
    """The function that an export names, and its arguments; nothing of a package that is not trusted is imported.

    Args:
        factory: a name of the zoo, or `module:function`.
        arguments: as they stand in the export.
        packages: trusted besides the zoo and the libraries.
        trust: whatever the export names may run, with whatever arguments.
        source: the file, for messages.

    Raises:
        ConfigError: `packages` are no names of packages.
        RunError: the factory is not trusted, or is nothing that builds a network; says what would run.
        RegistryError: it does not exist.
    """
    check_packages(packages)
    if not isinstance(factory, str) or not 0 < len(factory) <= 300 or not factory.isprintable():
        raise RunError(f"{source}: model.factory must be a name of the zoo or module:function; export the run anew")
    keywords = check_plain(arguments, f"{source}: model.arguments")
    if trust or ":" not in factory:
        return (load_object(factory) if ":" in factory else ZOO.get(factory)), keywords
    call = described_call(factory, keywords)
    found = _looked_up(factory, call, packages, source)
    home = _library_of(_home(found))
    if home is None:
        return found, keywords
    return found, library_arguments(found, keywords, f"{source}: loading this network would run {call}")


def check_packages(packages: Sequence[str]) -> None:
    """Refuse what does not name packages.

    Raises:
        ConfigError: it is no list of dotted names.
    """
    listed = isinstance(packages, Sequence) and not isinstance(packages, str)
    names = packages if listed else ()
    if not listed or not all(isinstance(name, str) and _PACKAGE.fullmatch(name) for name in names):
        raise ConfigError(f"packages must be a list of package names, for example ['my_models'], got {packages!r}")
    everything = [name for name in names if not is_nameable(name)]
    if everything:
        raise ConfigError(f"packages: {everything[0]!r} can run anything; name those of networks, or give trust=True")


def is_nameable(package: str) -> bool:
    """Whether it may be trusted by its name; the standard library and torch can run anything."""
    return _top(package) not in sys.stdlib_module_names and _top(package) != "torch"


def own_package(factory: str) -> str | None:
    """The package that has to be trusted for a factory; None for the zoo and the libraries."""
    module, function, _ = factory.partition(":")
    return _top(module) if function and not _library_of(module) else None


def _looked_up(path: str, call: str, packages: Sequence[str], source: str) -> Factory:
    match = _PATH.fullmatch(path)
    if match is None:
        raise _refused(source, call, "is not of the form module:function, without names that begin with _")
    module, parts = match["module"], match["object"].split(".")
    if not (_library_of(module) or _below(module, packages)):
        raise _refused(source, call, f"is code of {module!r}, which is not on the list", module)
    with blame(RunError, f"{source}: {module} cannot be imported", then="Install what this network is built with."):
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise RunError(
                f"{source}: this network is built by {call}: install the package of {error.name!r}, or build the full "
                f"network yourself and give model="
            ) from error
        for part in parts:
            if isinstance(found, type) and not issubclass(found, nn.Module):
                raise _refused(source, call, f"looks for {part!r} in a class that is no module")
            if not hasattr(found, part):
                names = [name for name in vars(found) if not name.startswith("_")]
                raise RunError(f"{source}: {path!r}: {module!r} has no {part!r}.{suggest(part, names)}")
            found = getattr(found, part)
            if isinstance(found, ModuleType):
                hint = f"; write {found.__name__}:…" if _library_of(found.__name__) else ""
                raise _refused(source, call, f"walks through the module {found.__name__!r}{hint}")
        _check_builds(found, len(parts), call, packages, source)
    factory: Factory = found
    return factory


def _check_builds(found: Any, steps: int, call: str, packages: Sequence[str], source: str) -> None:
    """Refuse what is not a class of modules or a function that returns them, made in a trusted package."""
    home = _home(found)
    library = _library_of(home)
    if steps > 1 and not _below(home, packages):
        raise _refused(source, call, "is a method, which may read what the export names")
    if not isinstance(found, functools.partial) and not (library or _below(home, packages)):
        where = f"is code of {home!r}, which is not on the list" if home else "is no function or class of a package"
        raise _refused(source, call, where, home)
    if isinstance(found, type):
        if not issubclass(found, nn.Module):
            raise _refused(source, call, "is a class, but no torch.nn.Module")
        return
    if isinstance(found, functools.partial) and not library:
        _check_builds(found.func, steps, call, packages, source)
        return
    function = inspect.unwrap(found) if callable(found) else found
    function = function.__func__ if inspect.ismethod(function) else function
    if not isinstance(function, FunctionType):
        raise _refused(source, call, f"is a {type(found).__name__}, no function or class")
    if not (_library_of(function.__module__) or _below(function.__module__, packages)):
        raise _refused(source, call, f"wraps code of {_top(function.__module__)!r}", function.__module__)
    returns = _returns_module(function)
    if returns is False or (library and not (returns or _registered(found, library))):
        raise _refused(source, call, "is not known to return a torch.nn.Module")


def _returns_module(function: FunctionType) -> bool | None:
    """What the annotation of a function says; None where it says nothing."""
    try:
        returned = get_type_hints(function).get("return", Any)
    except Exception:  # noqa: BLE001 - names that only a type checker imports, and whatever evaluating others raises
        return None
    if isinstance(returned, TypeVar):
        returned = returned.__bound__ or Any
    several = get_origin(returned) in (Union, UnionType)
    options = get_args(returned) if several else (get_origin(returned) or returned,)
    if Any in options or any(isinstance(one, TypeVar) for one in options):
        return None
    return any(isinstance(one, type) and issubclass(one, nn.Module) for one in options)


def _registered(found: Any, library: str) -> bool:
    """Whether a library lists it among its models."""
    name = getattr(found, "__name__", "")
    if library == "torchvision":
        return found in importlib.import_module("torchvision.models._api").BUILTIN_MODELS.values()
    if library == "timm":
        models = importlib.import_module("timm.models")
        return bool(models.is_model(name)) and models.model_entrypoint(name) is found
    return False


def _home(found: Any) -> str:
    """The module that an object was made in, as it says itself."""
    home = getattr(found, "__module__", None)
    return home if isinstance(home, str) else ""


def _library_of(module: str) -> str | None:
    """The library that a module belongs to, if factories are looked for there."""
    for library, places in LIBRARIES.items():
        if module in places or module.startswith(f"{places[-1]}."):
            return library
    return None


def _below(module: str, packages: Sequence[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in packages)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _refused(source: str, call: str, why: str, module: str = "") -> RunError:
    own = bool(module) and _top(module) not in sys.stdlib_module_names and not module.startswith("torch")
    named = f"packages=[{_top(module)!r}] if that package is yours, " if own and _top(module) not in LIBRARIES else ""
    return RunError(
        f"{source}: loading this network would run {call}. It was not run: that {why}. Modules, and functions that "
        f"return them, may be of the zoo, torchvision.models, timm, transformers and packages that you name. Only if "
        f"you know who made the file, give {named}trust=True for whatever it names, or build the full network yourself "
        f"and give model="
    )
