from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import named_package
import pytest
from torch import nn

from autoprune.errors import AutopruneError, ConfigError, RunError
from autoprune.export.building import built
from autoprune.export.factories import trusted_factory


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def network(factory: object, arguments: object = None, *, packages: tuple[str, ...] = ("named_package",)) -> nn.Module:
    given = {} if arguments is None else arguments
    made, keywords = trusted_factory(factory, given, packages=packages, source="net.yaml")
    return built(made, keywords, name=str(factory), space=None, source="net.yaml", limited=True)


@pytest.mark.parametrize(
    "factory",
    ["resnet20", "autoprune.zoo.resnet:resnet20"]
    + [f"named_package:{name}" for name in ("make", "promised", "Net", "Net.large", "half")],
)
def test_networks_of_the_zoo_and_of_named_packages_are_built(factory: str) -> None:
    assert isinstance(network(factory), nn.Module)


@pytest.mark.parametrize(
    ("factory", "arguments"),
    [
        ("os:system", {"command": "touch was-run"}),
        ("subprocess:run", {"args": ["touch", "was-run"]}),
        ("builtins:exec", {"object": "open('was-run', 'w')"}),
        ("torch:load", {"f": "weights.pt", "weights_only": False}),
        ("torch.hub:load", {"repo_or_dir": "a/b", "model": "c"}),
        ("torch.nn:Linear", {"in_features": 1, "out_features": 1}),
        ("autoprune.registry:load_object", {"path": "os:system"}),
        ("autoprune.zoo:load_object", {"path": "os:system"}),
        ("named_packages:make", {}),
        ("torchvisions.models:resnet18", {}),
        *((f"named_package:{name}", {}) for name in ("system", "os.system", "Eager", "wipe", "shell", "instance")),
        *((f"named_package:{name}", {}) for name in ("make.__globals__", "Net.__init__", "Net.mro", "Net.compile")),
        *((f"named_package:{name}", {}) for name in ("nn.Linear", "functools.partial", "MARK.touch", "_x", "missing")),
        *(
            (name, {})
            for name in ("a:b:c", ":x", "x:", "../x:y", "/tmp/x:y", "named_package.:make", " named_package:make")
        ),
        *((name, {}) for name in ("named_package:make\n", "ｎamed_package:make", "resnet20.__init__", "", "x" * 400)),
        *((name, {}) for name in (None, 3, True, ["resnet20"], {"a": 1})),
    ],
)
def test_nothing_else_is_run_or_imported(factory: object, arguments: dict[str, Any]) -> None:
    before = set(sys.modules)
    with pytest.raises(AutopruneError) as refused:
        network(factory, arguments)
    assert not named_package.MARK.exists()
    assert len(str(refused.value)) < 1000
    assert {name.partition(".")[0] for name in set(sys.modules) - before} <= {"named_package", "autoprune", "timm"}


def test_the_error_says_what_would_run_and_what_to_do() -> None:
    with pytest.raises(RunError, match=r"would run os:system\(command='rm -r x'\)\. It was not run: .* trust=True"):
        network("os:system", {"command": "rm -r x"})
    with pytest.raises(RunError, match=r"packages=\['mine'\] if that package is yours, trust=True .* model="):
        network("mine.models:make", packages=())


def test_trust_lets_the_file_run_what_it_names() -> None:
    found, keywords = trusted_factory("named_package:wipe", {"path": "x"}, trust=True, source="net.yaml")
    assert (found, keywords) == (named_package.wipe, {"path": "x"})


@pytest.mark.parametrize("packages", ["named_package", ["os"], ["torch.hub"], [3], [""], ["a-b"], ["a.*"], 3, {"a": 1}])
def test_packages_are_names_of_packages_that_hold_networks(packages: Any) -> None:
    with pytest.raises(ConfigError, match="packages"):
        network("resnet20", packages=packages)


def looped() -> dict[str, Any]:
    ring: dict[str, Any] = {}
    ring["a"] = ring
    return ring


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        "x",
        3,
        {1: 2},
        {"classes": 10**400},
        {"classes": b"1"},
        {"classes": {1, 2}},
        {"classes": "x" * 5000},
        {"x": {"weights_only": False}},
        {"x": [{"trust_remote_code": True}]},
        {"x": [0] * 20_000},
        looped(),
        {"no_such_argument": 1},
        {"width": 1e9},
        {"classes": 10**8},
        {"classes": float("nan")},
    ],
)
def test_arguments_are_data_of_sensible_size(arguments: object) -> None:
    with pytest.raises(AutopruneError) as refused:
        network("resnet20", arguments)
    assert len(str(refused.value)) < 1000


def test_a_network_beyond_the_memory_is_refused_before_it_is_made() -> None:
    for factory in ("named_package:make", "named_package:Net", "named_package:promised"):
        with pytest.raises(RunError, match="far larger than the one that was searched"):
            network(factory, {"width": 10**7})


@pytest.mark.parametrize(
    ("factory", "arguments", "builds"),
    [
        ("torchvision.models:resnet18", {"weights": "DEFAULT"}, True),
        ("torchvision.models:resnet18", {"pretrained": True}, True),
        ("torchvision.models:get_model", {"name": "resnet18"}, True),
        ("torchvision.models.resnet:torch.hub.load", {}, False),
        ("torchvision.models.resnet:nn.Linear", {"in_features": 1, "out_features": 1}, False),
        ("torchvision.models:list_models", {}, False),
        ("torchvision.models:get_model_builder", {"name": "resnet18"}, False),
        ("torchvision.models:ResNet18_Weights", {}, False),
        ("torchvision:os.system", {"command": "touch was-run"}, False),
        ("torchvision.datasets.utils:extract_archive", {"from_path": "x"}, False),
        ("timm:create_model", {"model_name": "resnet18", "pretrained": True}, True),
        ("timm:create_model", {"model_name": "resnet18", "checkpoint_path": "evil.pth"}, False),
        ("timm:create_model", {"model_name": "hf-hub:evil/x"}, False),
        ("timm:create_model", {"model_name": "local-dir:x"}, False),
        ("timm.models:load_state_dict", {"checkpoint_path": "x"}, False),
        ("transformers:AutoModel.from_pretrained", {"pretrained_model_name_or_path": "x"}, False),
        ("transformers:BertModel.from_pretrained", {"pretrained_model_name_or_path": "x"}, False),
        ("transformers:BertModel", {"config": {"attn_implementation": "evil/kernel"}}, False),
        ("transformers:pipeline", {"task": "x"}, False),
    ],
)
def test_libraries_build_networks_and_neither_read_nor_fetch(
    factory: str, arguments: dict[str, Any], builds: bool, import_torchvision: Callable[[], ModuleType]
) -> None:
    import_torchvision()
    pytest.importorskip(factory.partition(":")[0].partition(".")[0], reason="needs the library, which is not installed")
    if builds:
        assert isinstance(network(factory, arguments), nn.Module)
    else:
        with pytest.raises(AutopruneError):
            network(factory, arguments)
    assert not named_package.MARK.exists()
