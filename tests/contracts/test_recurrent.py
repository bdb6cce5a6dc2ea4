"""Every recurrent module keeps the contract; torch's own breaks it where it is known to. An unlisted module fails."""

from __future__ import annotations

import inspect

import pytest
from torch import nn

from gradguard import nn as gnn
from gradguard.nn import AbstractRecurrent
from tests.contracts.recurrent import CONTRACT, IN_TRAINING, MODULES, NOT_APPLICABLE, projected
from tests.nn.kinds import VARIANTS

TORCH_BREAKS = {
    "no_steps",
    "autocast_keeps_cells_wide",
    "vmap",
    "vmap_over_weights",
    "vmap_with_frozen_weights",
    "backward_under_autocast",
    "second_backward_under_autocast",
    "layouts_of_memory_in_a_graph",
    "gradients_per_sample",
    "one_graph_aot_eager",
    "one_graph_inductor",
    "packed_in_one_graph",
    "exports",
    "exports_strictly",
    "packed_of_another_width_is_refused",
}
pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own, of compilers and exporters


def test_lists_name_checks_that_there_are() -> None:
    assert {*TORCH_BREAKS, *(check for _, check in BROKEN)} <= CONTRACT.keys()


def test_every_public_module_has_a_cell() -> None:
    public = {name for name, c in inspect.getmembers(gnn, inspect.isclass) if issubclass(c, gnn.AbstractCell)}
    assert public - {"AbstractCell"} == {f"{name}Cell" for name in MODULES}


def test_every_public_module_is_under_contract() -> None:
    public = {c for _, c in inspect.getmembers(gnn, inspect.isclass) if issubclass(c, AbstractRecurrent)}
    listed = {inspect.unwrap(getattr(kind, "func", kind)) for kind in MODULES.values()}
    assert {c for c in public if not c.__name__.startswith("Abstract")} == listed


KINDS = MODULES | IN_TRAINING
APPLICABLE = [(name, check) for name in KINDS for check in CONTRACT if check not in NOT_APPLICABLE.get(name, {})]


@pytest.mark.parametrize(("module", "check"), APPLICABLE)
def test_the_contract_holds(module: str, check: str) -> None:
    CONTRACT[check](KINDS[module])


@pytest.mark.parametrize("check", ["dtypes", "autocast", "gradcheck", "gradgradcheck", "jacfwd", "one_graph_aot_eager"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_settings_that_change_the_equations_keep_it(variant: str, check: str) -> None:
    CONTRACT[check](VARIANTS[variant])


BROKEN = [(name, check) for name, checks in NOT_APPLICABLE.items() for check in checks]


@pytest.mark.parametrize(("module", "check"), BROKEN)
def test_what_is_not_applicable_does_break(module: str, check: str) -> None:
    """So that the list does not outlive its reasons."""
    kind, contract = KINDS[module], CONTRACT[check]
    with pytest.raises((Exception, pytest.fail.Exception)):  # whatever it is: the list says why
        contract(kind)


@pytest.mark.parametrize("check", CONTRACT)
def test_torch_keeps_it_but_for_what_is_listed(check: str) -> None:
    if check not in TORCH_BREAKS:
        CONTRACT[check](nn.LSTM)
        return
    contract = CONTRACT[check]
    with pytest.raises((Exception, pytest.fail.Exception)):  # whatever it is: the list says that it breaks
        contract(nn.LSTM)


def test_arguments_are_those_of_torch_in_their_order() -> None:
    layers = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"]
    for name, kind in MODULES.items():
        found = [p for p in inspect.signature(kind).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        names = [*layers, "proj_size"] if projected(kind) else list(layers)
        if "nonlinearity" in inspect.signature(kind).parameters:
            names.insert(3, "nonlinearity")
        assert [p.name for p in found] == [*names, "device", "dtype"], name
