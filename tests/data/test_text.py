"""Texts from files, and what stands for their characters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from autoprune.data import load_data
from autoprune.data.python_manual import manual
from autoprune.data.tokenizers import Bytes, Characters, tokenizer_for
from autoprune.data.tokens import TokenSplit
from autoprune.errors import ConfigError, DataError

TEXT = "".join(f"{n} green bottles, hanging on the wall – ✓\n" for n in range(300))


def tokens_of(split: object) -> torch.Tensor:
    assert isinstance(split, TokenSplit)
    return split._rows[0]


def test_characters_are_numbered_by_the_training_text_and_others_are_0() -> None:
    known = Characters("banana✓")
    assert known.encode("ban✓z").tolist() == [2, 1, 3, 4, 0]
    assert known.vocabulary == 5
    assert known.decode(known.encode("ban✓z").tolist()) == "ban✓\ufffd"


def test_bytes_are_utf_8() -> None:
    assert Bytes().encode("aé✓").tolist() == list("aé✓".encode())
    assert Bytes().decode(Bytes().encode(TEXT).tolist()) == TEXT


def test_a_file_is_read_in_three_parts(tmp_path: Path) -> None:
    (tmp_path / "song.txt").write_text(TEXT)
    splits = load_data("text", path=tmp_path / "song.txt", arguments={"context": 16, "validation": 0.2})
    assert splits.name == "song"
    assert splits.classes == len(set(TEXT)) + 1
    first = round(0.7 * len(TEXT))
    assert tokens_of(splits.train).tolist() == Characters(TEXT[:first]).encode(TEXT)[:first].tolist()
    lengths = [len(tokens_of(part)) for part in (splits.train, splits.validation, splits.test)]
    assert sum(lengths) == len(TEXT)


@pytest.mark.parametrize("suffix", ["npz", "npy", "safetensors"])
def test_tokens_in_an_array(tmp_path: Path, suffix: str) -> None:
    tokens, path = np.arange(1000) % 50, tmp_path / f"tokens.{suffix}"
    if suffix == "npz":
        np.savez(path, tokens=tokens)
    elif suffix == "npy":
        np.save(path, tokens.astype(np.uint16))
    else:
        save_file({"tokens": torch.from_numpy(tokens)}, path)
    splits = load_data("text", path=path, arguments={"context": 10, "vocabulary": 50})
    assert tokens_of(splits.train).tolist() == tokens[:800].tolist()
    assert splits.classes == 50


def test_named_parts_of_an_array_stay_what_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", train=np.arange(100), validation=np.arange(50), test=np.arange(20))
    splits = load_data("text", path=tmp_path / "t.npz", arguments={"context": 10})
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [9, 4, 1]


def test_a_tokenizer_json_is_read_by_its_package(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers", reason="needs the package tokenizers")
    made = library.Tokenizer(library.models.WordLevel({"[UNK]": 0, "[MASK]": 1, "green": 2, "wall": 3}, "[UNK]"))
    made.pre_tokenizer = library.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    for given in (tmp_path, tmp_path / "tokenizer.json"):
        known = tokenizer_for(str(given), "x")
        assert known.encode("green wall green x").tolist() == [2, 3, 2, 0]
        assert (known.vocabulary, known.mask) == (4, 1)


def test_the_manual_says_each_paragraph_once() -> None:
    paragraphs = [" ".join(part.split()) for part in manual().split("\n\n")]
    assert len(set(paragraphs)) == len(paragraphs) > 1000
    splits = load_data("python_manual", arguments={"context": 32, "limit": 20_000})
    assert splits.fingerprint == load_data("python_manual", arguments={"context": 32, "limit": 20_000}).fingerprint


def test_what_is_no_text_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; give data\.path"):
        load_data("text", path=tmp_path / "none.txt")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00" * 50)
    with pytest.raises(DataError, match="no text in UTF-8"):
        load_data("text", path=tmp_path / "bad.txt")
    np.save(tmp_path / "f.npy", np.zeros(100))
    with pytest.raises(DataError, match="whole numbers, got an array of float64"):
        load_data("text", path=tmp_path / "f.npy")
    (tmp_path / "t.txt").write_text(TEXT)
    with pytest.raises(ConfigError, match=r"no tokenizer\.json there|needs the package tokenizers"):
        load_data("text", path=tmp_path / "t.txt", arguments={"tokenizer": "charcters"})
    with pytest.raises(ConfigError, match="validation must be a share above 0"):
        load_data("text", path=tmp_path / "t.txt", arguments={"validation": 0})
