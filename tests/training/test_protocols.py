from typing import Any

import pytest
import torch
from torch import nn

from autoprune.config.parts import NamedPart
from autoprune.errors import ConfigError, RegistryError
from autoprune.registry import Part
from autoprune.training import PROTOCOLS
from autoprune.training.protocols import Protocol, make_protocol, reinitialise


def made(name: str, **settings: Any) -> Protocol:
    return make_protocol(NamedPart(name=name, settings=settings))


def test_fine_tune_inherits_and_trains_less_and_lower():
    protocol = made("fine_tune")
    assert protocol.inherits
    assert protocol.epochs(160, 40, 3.0) == 40
    assert protocol.lr(0.1) == pytest.approx(0.01)


def test_scratch_e_trains_as_the_base_network():
    protocol = made("scratch_e")
    assert not protocol.inherits
    assert protocol.epochs(160, 40, 3.0) == 160
    assert protocol.lr(0.1) == 0.1


@pytest.mark.parametrize(("flops_ratio", "epochs"), [(0.5, 160), (1.0, 160), (1.5, 240), (2.0, 320), (7.0, 320)])
def test_scratch_b_spends_the_same_computation_up_to_twice_the_epochs(flops_ratio: float, epochs: int):
    protocol = made("scratch_b")
    assert not protocol.inherits
    assert protocol.epochs(160, 40, flops_ratio) == epochs


def test_settings_change_what_they_say_and_are_told():
    assert made("fine_tune", lr_share=0.5).lr(0.1) == pytest.approx(0.05)
    assert made("scratch_b", longest=3.0).epochs(160, 40, 7.0) == 480
    assert made("fine_tune").told == "fine-tuned"
    assert made("fine_tune", lr_share=0.5).told == "fine-tuned with lr_share=0.5"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("scratch_e", {"longest": 2}, "'scratch_e' has no setting 'longest'; it has no settings"),
        ("fine_tune", {"lr_shar": 0.1}, "Did you mean 'lr_share'"),
        ("fine_tune", {"lr_share": 0}, "lr_share must be a number above 0, got 0"),
        ("fine_tune", {"lr_share": True}, "lr_share must be a number above 0, got True"),
        ("fine_tune", {"lr_share": -0.5}, "lr_share must be a number above 0, got -0.5"),
        ("scratch_b", {"longest": 0.5}, "longest must be a number of at least 1, got 0.5"),
    ],
)
def test_wrong_settings_are_one_clear_error(name: str, settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        made(name, **settings)


READY = Protocol(inherits=True, epochs=lambda base, fine_tune, ratio: 1, lr=lambda lr: lr)


def test_a_protocol_of_another_package_may_be_ready_made(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(PROTOCOLS._table, "mine", Part(f"{__name__}:READY"))
    monkeypatch.setitem(PROTOCOLS._table, "none", Part("builtins:dict"))
    assert made("mine").told == "trained by mine"
    with pytest.raises(ConfigError, match="protocol 'mine' has no setting 'epochs'; it has no settings"):
        made("mine", epochs=2)
    with pytest.raises(ConfigError, match="protocol 'none' gives a dict; it must be a Protocol"):
        made("none")


def test_unknown_protocols_get_a_suggestion():
    with pytest.raises(RegistryError, match="Did you mean 'scratch_e'"):
        made("scratch-e")


class Scaled(nn.Module):
    """Parameters of its own and no reset_parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.constant = nn.Parameter(torch.full((8,), 0.5))
        self.learnt = nn.Parameter(torch.linspace(2.0, 4.0, 4000))
        self.single = nn.Parameter(torch.tensor(0.3))
        self.empty = nn.Parameter(torch.zeros(0))


class OwnInit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def reset_parameters(self) -> None:
        nn.init.constant_(self.linear.weight, 7.0)


def test_weights_and_statistics_are_fresh_constants_stay_the_rest_keeps_its_moments():
    model = Scaled()
    with torch.no_grad():
        model.norm.running_mean.fill_(3.0)
        model.norm.weight.fill_(9.0)
    old = {name: value.clone() for name, value in model.state_dict().items()}
    identities = [id(p) for p in model.parameters()]
    reinitialise(model, seed=1)
    new = model.state_dict()
    assert not torch.equal(new["conv.weight"], old["conv.weight"])
    assert new["conv.weight"].abs().max() <= (1 / 27) ** 0.5  # torch's own default
    assert new["norm.running_mean"].eq(0).all()
    assert new["norm.weight"].eq(1).all()
    assert torch.equal(new["constant"], old["constant"])
    assert torch.equal(new["single"], old["single"])
    assert not torch.equal(new["learnt"], old["learnt"])
    torch.testing.assert_close(new["learnt"].mean(), old["learnt"].mean(), rtol=0, atol=0.05)
    torch.testing.assert_close(new["learnt"].std(), old["learnt"].std(), rtol=0.1, atol=0)
    assert [id(p) for p in model.parameters()] == identities


def test_a_seed_fixes_the_weights_and_the_global_random_state_stays():
    a, b, c = Scaled(), Scaled(), Scaled()
    before = torch.get_rng_state()
    for model, seed in ((a, 1), (b, 1), (c, 2)):
        reinitialise(model, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a.conv.weight, b.conv.weight)
    assert not torch.equal(a.conv.weight, c.conv.weight)


def test_a_network_has_the_last_word_on_its_own_initialisation():
    model = nn.Sequential(OwnInit())
    reinitialise(model, seed=0)
    assert model[0].linear.weight.eq(7.0).all()
