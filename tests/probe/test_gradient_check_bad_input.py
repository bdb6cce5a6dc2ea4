"""Bad input of a gradient check: need, got, mend; and what it leaves as it was."""

from __future__ import annotations

import copy
import dataclasses
import random
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from gradguard.probe import check_gradients
from tests.probe.faulty import batch, loss_of


class Five(nn.Linear):
    def __init__(self) -> None:
        super().__init__(5, 5)


class Counting(Five):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) + 0.1 * self.calls


class Locked(Five):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Stubborn(Five):
    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        return self


class Single(Five):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.float(), self.weight, self.bias)


def frozen() -> nn.Module:
    return nn.Linear(5, 5).requires_grad_(False)


def of(make: Callable[[], Any], loss_fn: Any = loss_of, **options: Any) -> Callable[[], Any]:
    return lambda: check_gradients(make(), loss_fn, batch(), **options)


OTHER = nn.Linear(5, 5)


def linear() -> nn.Module:
    return nn.Linear(5, 5)


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no module": (of(lambda: 3), TypeError, "needs a torch.nn.Module, got int. It comes first"),
    "no function": (
        of(linear, batch()),
        TypeError,
        "needs loss_fn to be callable, got tuple. It comes before the batch",
    ),
    "no parameters": (of(nn.ReLU), ValueError, "has nothing to check: ReLU has no parameters"),
    "frozen": (of(frozen), ValueError, "Linear has no parameters that require a gradient. Unfreeze one"),
    "no tensor": (
        of(linear, lambda m, b: loss_of(m, b).item()),
        TypeError,
        "needs loss_fn to give a tensor, got float",
    ),
    "a dict": (of(linear, lambda m, b: {"loss": loss_of(m, b)}), TypeError, "to give a tensor, got dict"),
    "many losses": (of(linear, lambda m, b: m(b[0])), ValueError, r"needs one loss, got shape \(4, 5\). Take its mean"),
    "complex": (of(linear, lambda m, b: loss_of(m, b) * 1j), ValueError, "needs a real loss, got torch.complex128"),
    "detached": (
        of(linear, lambda m, b: loss_of(m, b).detach()),
        ValueError,
        "none comes from it to any parameter. Is it",
    ),
    "another model": (
        of(linear, lambda m, b: loss_of(OTHER, (b[0].float(), b[1]))),
        ValueError,
        "or does loss_fn run another model than the one it is given",
    ),
    "NaN": (of(linear, lambda m, b: loss_of(m, b) * torch.nan), ValueError, "needs a finite loss, got nan"),
    "not the same": (of(Counting), ValueError, "needs a loss that is the same each time, got .*, or a counter"),
    "lazy": (of(lambda: nn.LazyLinear(5)), ValueError, "weights with a shape, but weight is lazy. Run the model once"),
    "meta": (of(lambda: nn.Linear(5, 5, device="meta")), ValueError, "weight is on the meta device. Call to_empty"),
    "a lock": (
        of(Locked),
        ValueError,
        r"works on a copy of the model, but copy.deepcopy\(Locked\) failed: .*__deepcopy__",
    ),
    "stays float32": (of(Stubborn), ValueError, "compute in float64, but weight stays torch.float32. Freeze it"),
    "runs in float32": (of(Single), ValueError, "float64 batch, and it failed: .*something keeps float32"),
    "can't be differentiated twice": (
        of(lambda: nn.Sequential(linear(), nn.Hardsigmoid()), second_order=True),
        ValueError,
        "can be differentiated twice, but it failed: .*Leave second_order out",
    ),
    "directions": (of(linear, directions=0), ValueError, "needs directions to be an integer >= 1, got 0"),
    "rtol": (of(linear, rtol=0.0), ValueError, "needs rtol > 0, got 0.0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, error, message = BAD[case]
    default = torch.get_default_dtype()
    with pytest.raises(error, match=f"check_gradients.*{message}"):
        call()
    assert torch.get_default_dtype() == default


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated:DeprecationWarning")
def test_a_scripted_model() -> None:
    with pytest.raises(TypeError, match="needs a model that is not scripted, got a ScriptModule"):
        check_gradients(torch.jit.script(linear()), loss_of, batch())


@pytest.mark.filterwarnings("ignore")
def test_a_sharded_model_and_one_of_several_processes() -> None:
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = linear()
        fully_shard(model, mesh=dist.init_device_mesh("cpu", (1,)))
        with pytest.raises(ValueError, match=r"but weight is a DTensor\. Check before you shard it"):
            check_gradients(model, loss_of, batch())
        assert check_gradients(nn.parallel.DistributedDataParallel(linear()), loss_of, batch())[0].name == "weight"
    finally:
        dist.destroy_process_group()


class Everything(nn.Module):
    """Draws of three generators, buffers, tied and unused and empty weights, float32 constants, a weight of a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(5, 5), nn.BatchNorm1d(5)
        self.tied = nn.Linear(5, 5, bias=False)
        self.tied.weight = self.first.weight
        self.unused, self.empty = nn.Linear(2, 2), nn.Parameter(torch.zeros(0, 3))
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)
        self.constant, self.constants = 2 * torch.eye(5), {"turn": [torch.eye(5).flip(0)]}
        self.low = nn.Linear(5, 5).to(torch.bfloat16)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.norm(self.first(x)) * self.frozen @ self.constant @ self.constants["turn"][0] @ torch.eye(5)
        x = nn.functional.dropout(self.tied(x), 0.3) * (1 + random.random()) + np.random.rand()
        return {"y": self.low(x.to(self.low.weight.dtype))}


class Given(NamedTuple):
    x: Tensor
    y: Tensor


@dataclasses.dataclass
class Batch:
    given: Given
    ids: list[Tensor]


def test_all_is_as_it_was() -> None:
    model, (x, y) = Everything(), batch(rows=6)
    model.frozen.grad = None
    model.first.weight.grad = torch.ones(5, 5)
    model.norm.eval()
    model.norm.train()
    given = Batch(Given(x, y), [torch.arange(3)])
    state, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy(), copy.deepcopy(given)
    seen = []

    def loss_fn(model: Any, batch: Batch) -> Tensor:
        seen.append((batch.given.x.dtype, batch.ids[0].dtype, model.low.weight.dtype, model.training))
        return (model(batch.given.x)["y"] - batch.given.y).square().mean()

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        check = check_gradients(model, loss_fn, given, inputs=True)
    assert set(seen) == {(torch.float64, torch.int64, torch.float64, True)}
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(state[name].dtype == value.dtype for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {"first.weight"}
    assert torch.equal(model.first.weight.grad, torch.ones(5, 5))
    assert model.constant.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])
    assert torch.equal(given.given.x, before[3].given.x)
    assert given.given.x.dtype == torch.float32
    assert not given.given.x.requires_grad
    assert torch.get_default_dtype() == torch.float32
    verdicts = {block.name: block.verdict for block in check}
    unseen = {name for name, verdict in verdicts.items() if verdict != "ok"}
    assert unseen == {"first.bias", "unused.weight", "unused.bias", "empty"}
    assert {block.why for block in check if block.name.startswith("unused")} == {"the loss does not depend on it"}
    assert {name for name in verdicts if "." not in name or name.startswith("batch")} == {
        *("empty", "batch.given.x", "batch.given.y")
    }
    assert list(verdicts).count("first.weight") == 1
    assert "tied.weight" not in verdicts
    assert "frozen" not in verdicts


def test_the_same_seed_says_the_same_and_another_one_no_other_verdict() -> None:
    model, given = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Dropout(0.5)), batch()
    one, two, other = (check_gradients(model, loss_of, given, seed=seed) for seed in (3, 3, 4))
    assert one == two
    assert one != other
    assert one.ok
    assert other.ok


def test_a_loss_that_fails_beside_the_point() -> None:
    def loss_fn(model: Any, batch: Any) -> Tensor:
        if not torch.equal(model.bias.detach(), torch.zeros(5)):
            raise RuntimeError("out of its domain")
        return loss_of(model, batch) + model.bias.sum()

    model = linear()
    nn.init.zeros_(model.bias)
    check = check_gradients(model, loss_fn, batch())
    assert [(block.name, block.verdict) for block in check] == [("weight", "ok"), ("bias", "unchecked")]
    assert "can't be computed, beside this point" in check[1].why


def test_a_gradient_of_nan_where_the_loss_is_smooth() -> None:
    """The trap of torch.where: the branch that is not taken gives NaN times 0."""

    def loss_fn(model: Any, batch: Any) -> Tensor:
        x = model(batch[0]).square() + 1
        return torch.where(x > 0, x, (-x).sqrt()).mean()

    check = check_gradients(linear(), loss_fn, batch())
    assert {block.why for block in check.wrong} == {"it holds NaN or Inf, where the loss has a derivative"}
    assert check.where == ("loss_fn",)


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": nn.DataParallel,
    "averaged": torch.optim.swa_utils.AveragedModel,
    "compiled, and averaged": lambda model: torch.compile(torch.optim.swa_utils.AveragedModel(model), backend="eager"),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrapped_models_go_by_their_own_names(kind: str) -> None:
    model = WRAPPED[kind](nn.Sequential(nn.Linear(5, 5), nn.Tanh()))
    model(batch()[0])
    kinds = set()

    def loss_fn(model: Any, batch: Any) -> Tensor:
        kinds.add(type(model))
        return loss_of(model, batch)

    check = check_gradients(model, loss_fn, batch())
    assert [(block.name, block.verdict) for block in check] == [("0.weight", "ok"), ("0.bias", "ok")]
    assert kinds == {nn.Sequential}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # of Dynamo's own
def test_parts_that_are_compiled() -> None:
    model = nn.Sequential(nn.Linear(5, 5), torch.compile(nn.Linear(5, 5), backend="eager"), nn.Linear(5, 5))
    model[2].compile(backend="eager")
    model(batch()[0])
    check = check_gradients(model, loss_of, batch())
    assert {block.verdict for block in check} == {"ok"}
    assert [block.name for block in check][2] == "1.weight"
