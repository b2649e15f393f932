"""Networks of transformers from a job: by a config, or from a folder; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import hugging_face
import pytest
import torch

from autoprune.errors import ConfigError
from autoprune.export.factories import trusted_factory
from autoprune.zoo import build_model
from autoprune.zoo.hugging_face import described

CONFIG = {"model_type": "llama", **hugging_face.CONFIGS["llama"][2]}
AUTO = "transformers:AutoModelForCausalLM"


def test_a_config_names_its_class() -> None:
    hugging_face.library()
    network = build_model(AUTO, {"config": {key: value for key, value in CONFIG.items() if key != "use_cache"}})
    assert type(network).__name__ == "LlamaForCausalLM"
    assert not network.config.use_cache


@pytest.mark.parametrize("factory", [AUTO, "transformers:LlamaForCausalLM"])
def test_a_folder_is_read_with_its_weights(tmp_path: Path, factory: str) -> None:
    model = hugging_face.network("llama")
    model.save_pretrained(tmp_path / "llama")
    found = build_model(factory, {"pretrained": str(tmp_path / "llama")}).eval()
    with torch.no_grad():
        expected = model(**hugging_face.inputs("llama")).logits
        assert torch.equal(found(**hugging_face.inputs("llama")).logits, expected)
    assert not found.config.use_cache


def test_what_is_exported_names_the_class_and_its_config_which_is_trusted() -> None:
    network = build_model(AUTO, {"config": CONFIG}) if hugging_face.library() else None
    assert network is not None
    told = described(network, AUTO, {"pretrained": "/some/where"})
    assert told["factory"] == "transformers:LlamaForCausalLM"
    factory, arguments = trusted_factory(told["factory"], told["arguments"], source="here")
    again = build_model("transformers:LlamaForCausalLM", arguments)
    assert factory is type(again)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == shapes
    plain = {"factory": "my_models:net", "arguments": {"depth": 3}}
    assert described(torch.nn.Linear(1, 1), plain["factory"], plain["arguments"]) == plain  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pretrained": "gpt2"}, "'gpt2' is no folder with a config.json; nothing is downloaded"),
        ({}, "takes either `pretrained`, a folder, or `config`"),
        ({"config": {"hidden_size": 8}}, "with model_type among them"),
        ({"config": {"model_type": "lama"}}, "the config of model .* cannot be made"),
    ],
)
def test_what_cannot_be_built_is_one_clear_error(arguments: dict[str, object], message: str) -> None:
    hugging_face.library()
    with pytest.raises(ConfigError, match=message):
        build_model(AUTO, arguments)


@pytest.mark.parametrize("keyword", ["trust_remote_code", "local_files_only", "use_safetensors"])
def test_guards_cannot_be_switched_off(tmp_path: Path, keyword: str) -> None:
    hugging_face.library()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"{keyword} cannot be set"):
        build_model(AUTO, {"pretrained": str(tmp_path), keyword: True})
