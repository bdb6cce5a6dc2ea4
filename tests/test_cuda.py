"""The same on a GPU: the oracle's norms, no synchronisation between flushes, mixed devices."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradguard import Guard, init
from gradguard import nn as gnn
from gradguard.clip import ZClip
from gradguard.functional import norms
from gradguard.probe import activations, through_time
from gradguard.recover import Skip
from tests import reference
from tests.contracts.recurrent import IN_TRAINING, MODULES, Kind, projected
from tests.guard.loops import batches, float32_total, loss_of, mlp

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Raise where the host waits for the GPU."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype feature")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_norms_equal_the_oracle_and_mixed_devices_meet_on_the_first() -> None:
    tensors = [torch.randn(1_000_003), torch.randn(37, 5, dtype=torch.float64), torch.randn(999).half()]
    placed = [tensors[0].cuda(), tensors[1], tensors[2].cuda()]
    found = norms(placed)
    assert found.device.type == "cuda"
    assert found.tolist() == pytest.approx([reference.norm(t.double().numpy(), 2) for t in tensors], rel=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_nothing_synchronises_between_flushes(fused: bool) -> None:
    model = mlp().cuda()
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    guard = Guard(model, optimizer, every_n_steps=100)
    data = [(x.cuda(), y.cuda()) for x, y in batches(40)]
    loss_of(model, data[0]).backward()
    optimizer.step()
    with no_synchronisation():
        for batch in data:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            guard.record_loss(loss)
            loss.backward()
            guard.measure()
            optimizer.step()
    assert guard.host_reads == 0
    assert guard.diagnose() == []
    assert guard.host_reads == 1


@pytest.mark.parametrize("fused", [False, True])
def test_fp16_with_a_scaler(fused: bool) -> None:
    model: nn.Module = mlp().cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, fused=fused)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**24)
    guard = Guard(model, optimizer, scaler=scaler)
    expected = {}
    for step, batch in enumerate(((x.cuda(), y.cuda()) for x, y in batches(30)), start=1):
        optimizer.zero_grad()
        expected[step] = float32_total(model, batch)
        with torch.autocast("cuda", torch.float16):
            loss = loss_of(model, batch)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    totals = guard.history["grad_norm/total"]
    assert 0 < len(totals.steps) < 30
    assert totals.last.tolist() == pytest.approx([expected[s] for s in totals.steps.tolist()], rel=1e-2)


@pytest.mark.parametrize("fused", [False, True])
def test_clipping_and_skipping(fused: bool) -> None:
    model: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
    guard = Guard(model, optimizer, clip=ZClip(max_norm=0.1), recover=Skip(3), every_n_steps=1000)
    for step, (x, y) in enumerate(batches(30)):
        optimizer.zero_grad()
        bad = step in (7, 20)
        before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
        nn.functional.mse_loss(model(x.cuda() * (torch.nan if bad else 1)), y.cuda()).backward()
        optimizer.step()
        if bad:
            assert all(torch.equal(value, before[0][key]) for key, value in model.state_dict().items())
            for key, state in optimizer.state_dict()["state"].items():
                assert all(torch.equal(value, before[1][key][name]) for name, value in state.items())
    assert guard.host_reads == (0 if fused else 30 + 2)  # a read a step, and one more for the names of a bad one
    assert guard.history["skipped"].steps.tolist() == [8, 21]
    assert guard.history["grad_norm/clipped"].high.nan_to_num().max() <= 0.1 * 1.001


@pytest.mark.parametrize("kind", [*MODULES.values(), *IN_TRAINING.values()], ids=[*MODULES, *IN_TRAINING])
def test_recurrent_modules_equal_the_cpu_and_never_synchronise(kind: Kind) -> None:
    module = kind(5, 7, num_layers=2, bidirectional=True, dtype=torch.float64, **projected(kind))
    there = copy.deepcopy(module).cuda()
    x = torch.randn(6, 4, 5, dtype=torch.float64)
    output, _ = module(x)
    output.square().sum().backward()
    placed = x.cuda()
    with no_synchronisation():
        found, _ = there(placed)
        found.square().sum().backward()
    torch.testing.assert_close(found.cpu(), output, rtol=1e-9, atol=1e-10)
    for a, b in zip(there.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(a.grad.cpu(), b.grad, rtol=1e-9, atol=1e-10)


@pytest.mark.filterwarnings("ignore")  # of Inductor: on its own imports, and on float32 where TF32 is faster
def test_a_recurrent_module_under_autocast_and_in_a_graph() -> None:
    module = gnn.LayerNormLSTM(16, 32, num_layers=2, batch_first=True).cuda()
    x = torch.randn(4, 10, 16, device="cuda")
    expected, _ = module(x)
    with torch.autocast("cuda", torch.float16):
        output, (h, c) = module(x)
    assert (output.dtype, h.dtype, c.dtype) == (torch.float16, torch.float16, torch.float32)
    torch.testing.assert_close(output.float(), expected, rtol=2e-2, atol=2e-2)
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(x)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk")
@pytest.mark.parametrize("kind", [nn.LSTM, gnn.LayerNormLSTM])
def test_initialisers_draw_the_same_on_a_gpu_and_leave_its_generator_alone(kind: type[nn.Module]) -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.drop = nn.Linear(6, 8), nn.Dropout(0.5)
            self.rnn, self.head = kind(8, 16, num_layers=2, bidirectional=True, dropout=0.5), nn.Linear(32, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(self.drop(torch.relu(self.embed(x))))[0])

    model, x = Tagger(), torch.randn(7, 5, 6)
    there, placed = copy.deepcopy(model).cuda(), x.cuda()
    state = torch.cuda.get_rng_state()
    for name, options in (
        ("orthogonal_", {}),
        ("chrono_", {"t_max": 30}),
        ("for_activations_", {"example_input": x}),
        ("lsuv_", {"example_input": x, "tolerance": 1e-3}),
        ("uniform_gate_", {}),
        ("spectral_radius_", {"value": 0.9}),
    ):
        call, on_gpu = (
            getattr(init, name),
            {**options, **({"example_input": placed} if "example_input" in options else {})},
        )
        for module, arguments in ((model, options), (there, on_gpu)):
            seeded = {} if name == "spectral_radius_" else {"generator": torch.Generator().manual_seed(0)}
            call(module, **arguments, **seeded)
        for a, b in zip(there.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(a.cpu(), b, rtol=1e-3, atol=1e-4)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    init.orthogonal_(there, generator=torch.Generator("cuda").manual_seed(0))
    assert len(init.describe(there, placed)) == len(init.describe(model, x))


@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous chunk")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, gnn.LSTM, gnn.GRU, gnn.LayerNormLSTM])
def test_profiles_through_time_are_those_of_a_cpu(kind: type[nn.Module]) -> None:
    module = kind(5, 7, num_layers=2, bidirectional=True).double()
    there, x = copy.deepcopy(module).cuda(), torch.randn(9, 4, 5, dtype=torch.float64)

    def loss_fn(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return module(x)[0].square().mean()

    for found, right in zip(through_time(there, x.cuda(), loss_fn), through_time(module, x, loss_fn), strict=True):
        torch.testing.assert_close(found.h, right.h, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.memory, right.memory, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, gnn.GRU])
def test_a_look_waits_for_nothing(kind: type[nn.Module]) -> None:
    model = nn.ModuleDict({"rnn": kind(5, 7, num_layers=2), "head": nn.Linear(7, 1)}).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard, x = Guard(model, optimizer, through_time=True), torch.randn(9, 4, 5, device="cuda")
    for step in range(4):
        optimizer.zero_grad()
        model["head"](model["rnn"](x)[0][-1]).square().mean().backward()
        if step:  # the first one loads kernels
            with no_synchronisation():
                optimizer.step()
        else:
            optimizer.step()
    assert guard.history["memory/rnn.l0/0"].steps.tolist() == [1, 2, 3, 4]
    guard.close()


class Mixed(nn.Module):
    """A convolution with a norm, a recurrent module, a transformer's layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.rnn, self.layer = nn.LSTM(8, 8, batch_first=True), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.out = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu_(self.norm(self.conv(x))).mean(3).transpose(1, 2)
        return self.out(torch.relu(self.layer(self.rnn(x)[0])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_look_at_layers_changes_nothing_waits_for_nothing_and_sees_what_a_cpu_sees(dtype: torch.dtype) -> None:
    ends, x = [], torch.randn(16, 1, 12, 12)
    seen = {}
    for asked in (False, True):
        torch.manual_seed(0)
        model = Mixed()
        expected = activations(copy.deepcopy(model).eval(), x, lambda m, x: m(x).square().mean())
        model.cuda().train()
        for dropout in (m for m in model.modules() if isinstance(m, nn.Dropout)):
            dropout.p = 0.0 if dtype is torch.float32 else dropout.p
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        scaler = torch.amp.GradScaler("cuda", enabled=dtype is torch.float16)
        guard = Guard(model, optimizer, every_n_steps=100, activations=asked, scaler=scaler)
        given = x.cuda()
        for step in range(9):
            optimizer.zero_grad()
            with nullcontext() if step == 0 or dtype is torch.float16 else no_synchronisation():
                with torch.autocast("cuda", dtype, enabled=dtype is torch.float16), sdpa_kernel(SDPBackend.MATH):
                    loss = model(given).float().square().mean()
                with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
                    scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
        assert guard.host_reads == 0
        seen = {name: float(guard.history[name].last[0]) for name in guard.history if name.startswith("activation/")}
        ends.append([*model.state_dict().values(), *(p.grad for p in model.parameters())])
        guard.close()
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    assert {name.split("/")[1] for name in seen} >= {"conv", "rnn", "layer.linear1", "layer.self_attn.out_proj", "out"}
    assert {name for name in seen if name.endswith("/silent")} == {
        f"activation/{layer}/silent" for layer in ("norm", "layer.linear1", "layer.norm2")
    }
    (first,) = [one for one in expected.signals if one.layer == "conv"]
    assert seen["activation/conv/rms"] == pytest.approx(first.rms, rel=1e-2)
    assert seen["activation/out/grad_rms"] > 0


def test_a_step_that_is_captured_is_let_alone() -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)).cuda(), torch.randn(4, 8, device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    guard = Guard(model, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's, about streams
        whole = torch.cuda.make_graphed_callables(model, (x,))
    for _ in range(3):
        optimizer.zero_grad(set_to_none=False)
        whole(x).square().mean().backward()
        optimizer.step()
    assert guard.steps == {"optimizer": 3}
    guard.close()
