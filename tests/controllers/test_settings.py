from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from smooth import half_of, loss, search

from autoprune.controllers import CONTROLLERS, make_controller
from autoprune.controllers.base import Controller
from autoprune.errors import AutopruneError, ConfigError, RegistryError


def proposals(controller: Controller, trials: int) -> list[tuple[int, ...]]:
    return [widths for widths, _ in search(controller, lambda widths: -loss(widths, 0), trials)]


@pytest.mark.parametrize("setting", CONTROLLERS.shared)
def test_shared_settings_hold_for_every_controller(setting: str) -> None:
    value: Any = {"per": "layer", "trust_region": 0.5}[setting]
    for name in CONTROLLERS.names():
        plain = make_controller(name, half_of(), seed=0, settings={})
        if setting == "trust_region" and not (plain.keeps_budget and plain.one_budget):
            with pytest.raises(ConfigError, match=r"leave trust_region out.* or choose another controller"):
                make_controller(name, half_of(), seed=0, settings={setting: value})
        else:
            assert make_controller(name, half_of(), seed=0, settings={setting: value}).ask(2)


def test_the_length_of_the_search_can_be_set_by_hand() -> None:
    settings = {"trials": 16}
    one = make_controller("fastnas", half_of(), seed=0, settings=settings, trials=400)
    two = make_controller("fastnas", half_of(), seed=0, settings={}, trials=16)
    assert proposals(one, 16) == proposals(two, 16)


def test_importances_are_not_a_setting() -> None:
    with pytest.raises(ConfigError, match="no setting 'importance'"):
        make_controller("legr", half_of(), seed=0, settings={"importance": []})


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of OptunaHub's registry with one sampler, and a stand-in for the package optunahub."""
    (tmp_path / "samplers" / "plain").mkdir(parents=True)

    class PlainSampler(optuna.samplers.RandomSampler):
        def __init__(self, search_space: dict[str, object], seed: int | None = None) -> None:
            super().__init__(seed)
            assert len(search_space) == 8

    def load_local_module(package: str, *, registry_root: str) -> SimpleNamespace:
        assert (package, registry_root) == ("samplers/plain", str(tmp_path))
        return SimpleNamespace(PlainSampler=PlainSampler)

    monkeypatch.setitem(sys.modules, "optunahub", SimpleNamespace(load_local_module=load_local_module))  # type: ignore[arg-type]
    return tmp_path


def test_a_sampler_of_a_local_copy_of_optunahub_is_used(registry: Path) -> None:
    settings = {"registry": str(registry)}
    hub = make_controller("optunahub:samplers/plain:PlainSampler", half_of(), seed=2, settings=settings)
    own = make_controller("optuna:RandomSampler", half_of(), seed=2, settings={})
    assert proposals(hub, 10) == proposals(own, 10)


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("samplers/plain:PlainSampler", {}, ConfigError, "needs the setting 'registry'.*Nothing is downloaded"),
        ("samplers/other:X", {"registry": "REGISTRY"}, ConfigError, "the folder that holds samplers/other"),
        ("samplers/plain", {"registry": "REGISTRY"}, RegistryError, "is not of the form"),
        ("samplers/plain:PlanSampler", {"registry": "REGISTRY"}, RegistryError, "Did you mean 'PlainSampler'"),
        ("samplers/plain:PlainSampler", {"registry": "REGISTRY", "n": 1}, ConfigError, "no setting 'n'"),
    ],
)
def test_what_cannot_be_found_in_the_registry_is_explained(
    registry: Path, name: str, settings: dict[str, object], error: type[AutopruneError], message: str
) -> None:
    given = {key: str(registry) if value == "REGISTRY" else value for key, value in settings.items()}
    with pytest.raises(error, match=message):
        make_controller(f"optunahub:{name}", half_of(), seed=0, settings=given)


def test_without_optunahub_the_error_says_what_to_install(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optunahub", None)  # type: ignore[arg-type]
    with pytest.raises(RegistryError, match="pip install optunahub"):
        make_controller(
            "optunahub:samplers/plain:PlainSampler", half_of(), seed=0, settings={"registry": str(registry)}
        )


@pytest.mark.parametrize("sampler", ["optuna:TPESampler", "optuna:CmaEsSampler"])
def test_seeds_beyond_32_bits_are_folded_and_smaller_ones_kept(sampler: str) -> None:
    def of_seed(seed: int) -> list[tuple[int, ...]]:
        return proposals(make_controller(sampler, half_of(), seed=seed, settings={}), 12)

    assert of_seed(2**32 + 5) != of_seed(5)
    assert of_seed(2**63 - 1) == of_seed(2**63 - 1)
