from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autoprune.config.bounded_files import found_path, read_text
from autoprune.config.yaml_reader import dump_yaml, parse_yaml, read_yaml
from autoprune.errors import ConfigError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | TEXT,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXT, below, max_size=4),
    max_leaves=20,
)
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 8)
)
MERGES = "a0: &a0 {k0: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}], k{i}: 1}}\n" for i in range(1, 8)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60))
WRONG = {
    "a key twice": ("seed: 1\ntrials: 2\nseed: 3\n", "line 3: the key 'seed' stands twice, first in line 1"),
    "a key twice below": ("a:\n  b: 1\n  'b': 2\n", "line 3: the key 'b' stands twice"),
    "a list as a key": ("? [a, b]\n: 1\n", "line 1: a list or mapping cannot be a key"),
    "an alias bomb": (BOMB, "more than 20,000 values"),
    "a bomb of merges": (MERGES, "more than 20,000 values"),
    "long texts by aliases": (f"a: &a {'x' * 9000}\nb: [{', '.join(['*a'] * 100)}]\n", "500,000 characters"),
    "deep by aliases": (CHAIN, "more than 32 deep"),
    "inside of itself": ("a: &a [1, *a]\n", "stands inside of what it stands for"),
    "merged into itself": ("a: &a {<<: *a}\n", "stands inside of what it stands for"),
    "nested lists": ("a: " + "[" * 500, "more than 32 deep"),
    "nested mappings": ("a: " + "{b: " * 5000, "more than 32 deep"),
    "nested blocks": ("- " * 400 + "x", "more than 32 deep"),
    "many digits": (f"seed: {'9' * 5000}\n", "a number of 5,000 characters"),
    "a long text": (f"name: {'x' * 20_000}\n", "a text of 20,000 characters"),
    "no number": ("a: 0b_\n", "line 1: this is not a whole number"),
    "a tag with another value": ("a: !!float soon\n", "line 1: this is not a number"),
    "a tag of Python": ("a: !!python/object/apply:os.system [ls]\n", "!!python/object/apply:os.system cannot be used"),
    "a tag of one's own": ("a: !mine 3\n", "the tag !mine cannot be used"),
    "bytes": ("a: !!binary aGVsbG8=\n", "the tag !!binary cannot be used"),
    "a set": ("a: !!set {b, c}\n", "the tag !!set cannot be used"),
    "half a pair": ('a: "\\ud800"\n', "this text holds characters"),
    "a null character": ('a: "x\\0y"\n', "this text holds characters"),
    "a control character": ("a: \x07\n", "line 1: character #x0007 is not allowed"),
    "an alias of nothing": ("a: *b\n", "line 1, column 4: .*undefined alias"),
    "two documents": ("a: 1\n---\nb: 2\n", "line 2, column 1: .*single document"),
    "no YAML": ("a: [1\nb: 2\n", "line 2, column 2: while parsing a flow sequence"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_goes_beyond_the_bounds_is_one_short_line_at_once(case: str) -> None:
    text, said = WRONG[case]
    began = time.process_time()
    with pytest.raises(ConfigError, match=rf"^job.yaml(, | is not valid YAML: ).*{said}") as caught:
        parse_yaml(text, "job.yaml")
    assert time.process_time() - began < 2
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@given(PLAIN)
def test_plain_values_are_read_as_they_were_written(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump(value), "file", dumped=True) == value
    for dumped in (True, False):
        assert parse_yaml(dump_yaml(value), "file", dumped=dumped) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-2E3", -2000.0),
        ("1.0e3", 1000.0),
        ("5e-05", 5e-5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("010", 10),
        ("08", 8),
        ("0o17", 15),
        ("0x1f", 31),
        ("1_000", 1000),
        ("-7", -7),
        ("12:30", "12:30"),
        ("1:30.5", "1:30.5"),
        ("1e", "1e"),
        ("1.2.3", "1.2.3"),
        ('"1e5"', "1e5"),
        ("on", True),
        ("No", False),
        ("{on: 1, No: 2}", {"on": 1, "No": 2}),
    ],
)
def test_numbers_are_those_that_people_mean(text: str, value: Any) -> None:
    found = parse_yaml(f"a: {text}", "file")["a"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("text", ["1e5", "08", "0o7", "12:30", "010", "1_0", "-.5e1"])
def test_a_text_that_looks_like_a_number_stays_one_in_what_we_write(text: str) -> None:
    for written in (yaml.safe_dump({"a": text}), dump_yaml({"a": text})):
        assert parse_yaml(written, "file", dumped=True) == {"a": text}
    assert parse_yaml(dump_yaml({"a": text}), "file") == {"a": text}


@pytest.mark.parametrize("text", ["2020-01-01", "2020-99-99", "2001-12-14t21:59:43.10-05:00", "="])
def test_what_looks_like_a_date_is_a_text(text: str) -> None:
    assert parse_yaml(f"a: {text}", "file") == {"a": text}


def test_what_is_merged_in_may_be_overruled() -> None:
    text = "one: &one {a: 1, b: 2}\ntwo: {<<: *one, b: 3}\nthree: {four: &four {<<: *one, a: 0}}\nfive: {<<: *four}\n"
    assert parse_yaml(text, "file") == yaml.safe_load(text)


def test_a_message_quotes_no_line_of_the_file() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml("storage: postgresql://me:hunter2@host/db\nsearch: [1\n", "job.yaml")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/dev/zero", "a device, pipe or socket"),
        ("pipe", "a device, pipe or socket"),
        (".", "it is a folder"),
        ("nowhere", "No such file"),
        ("x" * 5000, "File name too long"),
        ("a\0b", "null"),
        ("loop", "symbolic links"),
    ],
)
def test_only_files_are_read(path: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=said) as caught:
        read_yaml(Path(path))
    assert len(str(caught.value)) < 400


def test_a_file_too_large_is_not_read_and_one_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(b"#" * 100 + b"\n\xe9")
    with pytest.raises(ConfigError, match=r"job.yaml, line 2: byte 0xe9 is not UTF-8"):
        read_text(path)
    with pytest.raises(ConfigError, match="more than 50 bytes"):
        read_text(path, most=50)
    path.write_bytes("\ufeffname: é".encode())
    assert read_yaml(path) == {"name": "é"}


@pytest.mark.parametrize("path", ["/dev/zero", "~nobody-of-this-name/x", "x" * 5000, "y" * 300, "a\0b"])
def test_a_path_that_cannot_be_meant_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"device|home of nobody|characters|looked up"):
        found_path(Path(path), [Path()])
