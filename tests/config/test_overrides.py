from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import write_job

from autoprune.config.job import load_job
from autoprune.config.overrides import overridden, read_pairs
from autoprune.errors import ConfigError


@pytest.mark.parametrize(
    ("pair", "key", "value"),
    [
        ("search.trials=200", "search.trials", 200),
        ("constraints.flops=40%", "constraints.flops", "40%"),
        ("constraints={flops: 40%, params: 1e5}", "constraints", {"flops": "40%", "params": 1e5}),
        ("verdict.protocols=[fine_tune]", "verdict.protocols", ["fine_tune"]),
        ("search.storage=sqlite:///a=b.db", "search.storage", "sqlite:///a=b.db"),
        (" seed = 3", "seed", 3),
        ("threads=null", "threads", None),
        ("threads=", "threads", None),
    ],
)
def test_a_pair_is_a_key_and_a_value_in_yaml(pair: str, key: str, value: Any) -> None:
    assert read_pairs([pair]) == {key: value}


@pytest.mark.parametrize("pair", ["search.trials", "=5", "search..trials=5", ".=5", "search.=5", "a=[1", "a={b: ]"])
def test_what_is_no_pair_is_one_clear_error(pair: str) -> None:
    with pytest.raises(ConfigError, match=r"--set '.*': (give KEY=VALUE, for example|the value is not valid YAML)"):
        read_pairs([pair])


@pytest.mark.parametrize(
    "pair", ["a" * 9000, "constraints.flops=" + "9" * 9000, "a=" + "[" * 9000, "a=\x1b[31m" + "x" * 9000]
)
def test_a_long_pair_is_not_all_of_the_message(pair: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set '.*…: ") as caught:
        read_pairs([pair])
    assert len(str(caught.value)) < 800
    assert "\x1b" not in str(caught.value)


def test_of_two_pairs_of_one_key_the_last_holds() -> None:
    assert read_pairs(["seed=1", "seed=2"]) == {"seed": 2}


def test_a_part_given_by_its_name_keeps_it(tmp_path: Path) -> None:
    path = write_job(tmp_path / "job.yaml", {"search.controller": "evolution", "engine": "ray"})
    job = load_job(path, {"search.controller.settings.population": 8, "engine.workers": 2})
    assert (job.search.controller.name, job.search.controller.settings) == ("evolution", {"population": 8})
    assert (job.engine.name, job.engine.workers) == ("ray", 2)


def test_an_entry_of_a_list_is_set_by_its_position() -> None:
    data = {"verdict": {"protocols": ["fine_tune", "scratch_e"]}}
    found = overridden(data, {"verdict.protocols.0.settings.lr_share": 0.5})
    assert found["verdict"]["protocols"] == [{"name": "fine_tune", "settings": {"lr_share": 0.5}}, "scratch_e"]
    assert data == {"verdict": {"protocols": ["fine_tune", "scratch_e"]}}, "what was given is only read"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search.trails": 5}, r"unknown key 'search.trails'. Did you mean 'trials'\?"),
        ({"serch.trials": 5}, r"unknown key 'serch'. Did you mean 'search'\?"),
        ({"search.trials": "many"}, r"search.trials: .* got 'many'"),
        ({"search.trials": 0}, r"search.trials: .*greater than or equal to 1, got 0"),
        ({"search.trials.more": 1}, r"search.trials.more: search.trials is 3, which holds no keys"),
        ({"space.min_channels": 4}, r"space is 'a.yaml', which holds no keys; give space=… as a whole"),
        ({"verdict.protocols.5": "fine_tune"}, r"verdict.protocols is a list of 1; .* a position from 0 to 0"),
        ({"verdict.protocols.first": "fine_tune"}, r"verdict.protocols is a list of 1; give the whole list"),
        ({"search.time_budget": "2 weeks"}, r"search.time_budget: a time must be .*, got '2 weeks'"),
        ({"search.time_budget": 0}, r"search.time_budget: .*greater than 0, got 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_set_is_one_clear_error(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = write_job(tmp_path / "job.yaml", {"verdict.protocols": ["fine_tune"], "space": "a.yaml"})
    data = yaml.safe_load(path.read_text())
    if "space.min_channels" not in changes:
        del data["space"]
        path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=said):
        load_job(path, changes)


def test_a_time_budget_at_its_default_changes_no_job(tmp_path: Path) -> None:
    plain = load_job(write_job(tmp_path / "job.yaml"))
    assert "time_budget" not in plain.model_dump()["search"]
    limited = load_job(tmp_path / "job.yaml", {"search.time_budget": "2h"})
    assert limited.search.time_budget == 7200
    assert limited.model_dump()["search"]["time_budget"] == 7200
