"""Looking through time into models as they are used: compiled, checkpointed, in half precision, with odd weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from gradguard import nn as gnn
from gradguard.probe import Profile, through_time
from tests.probe.models import IN, KINDS, H, Model, batch, loss_of, made, same


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # of Dynamo's own
@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_model_is_run_as_it_was(kind: Any) -> None:
    torch._dynamo.reset()
    model = Model(made(kind)).eval()
    right = through_time(model, batch(), loss_of)
    compiled = torch.compile(model, backend="eager")
    same(through_time(compiled, batch(), loss_of), right)
    compiled(batch())
    same(through_time(compiled, batch(), loss_of), right)
    assert [one.layer for one in right] == ["rnn.l0", "rnn.l1"]
    model.rnn = torch.compile(model.rnn, backend="eager")
    same(through_time(model, batch(), loss_of), right)


@pytest.mark.parametrize("kind", KINDS)
def test_activation_checkpointing_changes_nothing(kind: Any) -> None:
    model, x = Model(made(kind)), batch().requires_grad_()
    right = through_time(model, x, loss_of)
    model.run = lambda function, x: checkpoint(function, x, use_reentrant=False)
    found = through_time(model, x, loss_of)
    same(found, right)
    assert all(p.grad is None for p in (x, *model.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_reentrant_checkpoint_is_named_as_the_reason(kind: Any) -> None:
    model, x = Model(made(kind)), batch().requires_grad_()
    model.run = lambda function, x: checkpoint(function, x, use_reentrant=True)
    with pytest.raises(ValueError, match=r"or in a checkpoint with use_reentrant=True, which is\?"):
        through_time(model, x, loss_of)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_an_output_may_be_changed_in_place(kind: Any) -> None:
    module = made(kind)
    right = through_time(module, batch(), lambda m, x: (2 * m(x)[0] + 1)[-1].square().sum())
    same(through_time(module, batch(), lambda m, x: m(x)[0].mul_(2).add_(1)[-1].square().sum()), right)

    def unseen(module: Any, x: Tensor) -> Tensor:
        output, _ = module(x)
        loss = (output * 3)[-1].sum()
        with torch.no_grad():
            output.zero_()
        return loss

    same(through_time(module, batch(), unseen), through_time(module, batch(), lambda m, x: (m(x)[0] * 3)[-1].sum()))


def test_an_output_of_ours_may_be_changed_where_autograd_lets_it() -> None:
    module = made(gnn.GRU, 1)
    right = through_time(module, batch(), lambda m, x: (2 * m(x)[0])[-1].square().sum())
    same(through_time(module, batch(), lambda m, x: m(x)[0].mul_(2)[-1].square().sum()), right)


@pytest.mark.parametrize("what", ["input", "states"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, gnn.GRU, gnn.LSTM])
def test_what_was_given_may_not_be_changed_in_place(kind: Any, what: str) -> None:
    def loss_fn(module: Any, x: Tensor) -> Tensor:
        x, h = x.clone(), torch.zeros(1, 3, H, dtype=x.dtype)
        hx = (h, h.clone()) if kind in (nn.LSTM, gnn.LSTM) else h
        loss = module(x, hx)[0][-1].sum()
        (x if what == "input" else h).add_(1)
        return loss

    with pytest.raises(ValueError, match=r"can't look into rnn: its input, its states or its weights were changed"):
        through_time(nn.ModuleDict({"rnn": made(kind, 1)}), batch(), lambda model, x: loss_fn(model["rnn"], x))


@pytest.mark.parametrize("kind", [nn.GRU, gnn.GRU])
def test_a_state_in_a_buffer_is_given_as_any_other(kind: Any) -> None:
    model = nn.ModuleDict({"rnn": made(kind, 1)})
    model.register_buffer("h", torch.full((1, 3, H), 0.5, dtype=torch.float64))
    (found,) = through_time(model, batch(), lambda m, x: m["rnn"](x, m.h)[0][-1].sum())
    h = model.h.clone()
    same((found,), through_time(model, batch(), lambda m, x: m["rnn"](x, h)[0][-1].sum()))
    assert found.truncated == 0


@pytest.mark.parametrize("kind", [nn.LSTM, gnn.LSTM])
def test_only_what_is_carried_on_without_its_history_is_cut_off(kind: Any) -> None:
    module = made(kind, 1)
    for value, has_history, cut in ((0.0, False, None), (0.5, True, None), (0.5, False, 0)):
        hx = tuple(torch.full((1, 3, H), value, dtype=torch.float64, requires_grad=has_history) for _ in "hc")
        (found,) = through_time(module, batch(), lambda m, x, hx=hx: m(x, hx)[0][-1].sum())
        assert found.truncated == cut
    mixed = hx[0], torch.zeros(1, 3, H, dtype=torch.float64)
    assert through_time(module, batch(), lambda m, x: m(x, mixed)[0][-1].sum())[0].truncated == 0


def test_several_modules_have_their_names_and_some_may_be_chosen() -> None:
    layers = [gnn.LayerNormLSTM(IN, H, bidirectional=True), nn.GRU(2 * H, H, 2), gnn.IndRNN(H, H, length=5)]
    model = nn.ModuleDict({"encoder": nn.LSTM(IN, IN), "stack": gnn.Stack(layers, residual=True, norm=nn.BatchNorm1d)})
    model.double()

    def loss_fn(model: Any, x: Tensor) -> Tensor:
        return model["stack"](model["encoder"](x)[0])[0][-1].square().sum()

    found = through_time(model, batch(), loss_fn)
    of_stack = ["l0", "l0_reverse"], ["l0", "l1"], ["l0"]
    names = [f"stack.layers.{i}.{name}" for i, own in enumerate(of_stack) for name in own]
    assert [one.layer for one in found] == ["encoder.l0", *names]
    some = through_time(model, batch(), loss_fn, modules=["stack.layers.1"])
    same(some, found[3:5])
    middle = model["encoder"](batch())[0].detach()

    def of_upper(stack: Any, x: Tensor) -> Tensor:
        return stack(x)[0][-1].square().sum()

    same(through_time(model["stack"], middle, of_upper), tuple(_renamed(found[1:], "stack.")), rtol=1e-10)


def _renamed(profiles: tuple[Profile, ...], prefix: str) -> list[Profile]:
    found = [copy.copy(one) for one in profiles]
    for one in found:
        object.__setattr__(one, "layer", one.layer.removeprefix(prefix))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_call_that_a_gradient_comes_to_counts(kind: Any) -> None:
    module, x = made(kind), batch()
    right = through_time(module, x, loss_of)
    same(through_time(module, x, lambda m, x: loss_of(m, 2 * x) + loss_of(m, x)), right)
    same(through_time(module, x, lambda m, x: (loss_of(m, x), *(m(2 * x) for _ in range(3)))[0]), right)
    again = through_time(module, x, lambda m, x: m(m(x)[0][..., :IN])[0][-1].square().sum())
    assert again[-1].is_at_end, "the second call touches the first one at all steps, and is the last"


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, gnn.LSTM, gnn.GRU, gnn.RNN])
def test_mixed_and_half_precision_come_close(kind: Any) -> None:
    module = made(kind)
    right = through_time(module, batch(), loss_of)
    narrow = copy.deepcopy(module).float()
    same(through_time(narrow, batch().float(), loss_of), right, rtol=1e-5)

    def mixed(module: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            output, _ = module(x)
        return output[-1].float().square().sum()

    same(through_time(narrow, batch().float(), mixed), right, rtol=0.03)
    for dtype, rtol in ((torch.bfloat16, 0.03), (torch.float16, 0.01)):
        same(through_time(copy.deepcopy(module).to(dtype), batch().to(dtype), loss_of), right, rtol)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("norm", [parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_computed_are_those_of_the_call(kind: Any, norm: Callable[..., nn.Module]) -> None:
    module = made(kind)
    right = through_time(module, batch(), loss_of)
    same(through_time(norm(module, "weight_hh_l0"), batch(), loss_of), right)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_the_call_where_each_look_changes_them(kind: Any) -> None:
    """Spectral normalisation takes a step at each look, in training; the first ones change much."""
    torch.manual_seed(0)
    module = parametrizations.spectral_norm(made(kind, 1), "weight_hh_l0", n_power_iterations=1)
    (found,) = through_time(module, batch(), loss_of)
    seen = []
    module.parametrizations.weight_hh_l0.register_forward_hook(lambda _, __, weight: seen.append(weight.detach()))
    saved = copy.deepcopy(module.state_dict())
    module(batch())
    module.load_state_dict(saved)
    plain = made(kind, 1)
    plain.weight_hh_l0.data.copy_(seen[-1])
    same((found,), through_time(plain, batch(), loss_of))


@pytest.mark.parametrize("kind", [nn.GRU, gnn.GRU])
def test_weights_that_are_swapped_in_for_a_call_are_seen(kind: Any) -> None:
    module, other = made(kind, 1), made(kind, 1)
    other.weight_hh_l0.data.mul_(2)
    swapped = {name: p.detach().clone().requires_grad_() for name, p in other.named_parameters()}
    found = through_time(
        module, batch(), lambda m, x: torch.func.functional_call(m, swapped, (x,))[0][-1].square().sum()
    )
    same(found, through_time(other, batch(), loss_of))


@pytest.mark.parametrize("kind", [nn.LSTM, gnn.LSTM])
def test_frozen_weights_do_not_matter(kind: Any) -> None:
    module = made(kind)
    right = through_time(module, batch(), loss_of)
    same(through_time(module.requires_grad_(False), batch().requires_grad_(), loss_of), right)


def test_wrappers_are_taken_off() -> None:
    model = Model(made(nn.LSTM)).eval()
    same(through_time(AveragedModel(model), batch(), loss_of), through_time(model, batch(), loss_of))
