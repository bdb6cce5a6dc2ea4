"""What the two processes of the sharded tests run, and what one process runs to be held against it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gradguard.clip import (
    AGC,
    AbstractRescaler,
    AdaGC,
    AutoClip,
    ClipResult,
    Ema,
    GradientStabilizer,
    MedianMad,
    NormBand,
    NormClip,
    PerModule,
    ValueClip,
    ZClip,
)

STEPS, SPIKE, POISON = 9, 6, 4  # at SPIKE all gradients are fifty times as long, at POISON one rank has a NaN

CLIPPERS: dict[str, Callable[[], AbstractRescaler]] = {
    "norm": lambda: NormClip(0.5),
    "norm, p = 1": lambda: NormClip(5.0, norm_type=1),
    "norm, largest entry": lambda: NormClip(0.1, norm_type="inf"),
    "value": lambda: ValueClip(-0.02, 0.02),
    "agc": lambda: AGC(0.02, exclude=["last"], vectors=True),
    "autoclip": lambda: AutoClip(50.0),
    "zclip": lambda: ZClip(baseline=Ema(warmup=3)),
    "median and mad": lambda: ZClip(baseline=MedianMad(window=10, warmup=3)),
    "adagc": lambda: AdaGC(warmup=3),
    "band": lambda: NormBand(0.5, 0.8),
    "stabilizer": GradientStabilizer,
    "of modules": lambda: PerModule(
        {"lstm": ZClip(baseline=Ema(warmup=3)), "conv": AGC(0.02, exclude=()), "*": AdaGC(warmup=3)}
    ),
}


class Model(nn.Module):
    """Layers whose sizes two ranks can't share evenly, and one row of which the second rank holds nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 13)
        self.conv = nn.Conv1d(13, 11, 3)
        self.up = nn.ConvTranspose1d(11, 7, 3)
        self.lstm = nn.LSTM(7, 9)
        self.last = nn.Linear(9, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(x)).transpose(1, 2)
        hidden = self.up(torch.tanh(self.conv(hidden))).transpose(1, 2)
        return self.last(self.lstm(hidden)[0])


def model() -> Model:
    torch.manual_seed(0)
    return Model()


def backward(net: nn.Module) -> None:
    x = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(1))
    (net(x) * 3).square().mean().backward()


def whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def state(clipper: AbstractRescaler) -> str:
    return repr(clipper.state_dict())


def clip_all(net: nn.Module, named: Mapping[str, nn.Parameter], poison: Callable[[Any], None]) -> dict[str, Any]:
    """Clip the same gradients, longer or shorter at each step, with every clipper; tell what came of it."""
    base = {name: param.grad for name, param in named.items()}
    seen: dict[str, Any] = {}
    for kind, make in CLIPPERS.items():
        clipper = make()
        steps = []
        for step in range(STEPS):
            for name, param in named.items():
                param.grad = base[name] * (1 + 0.2 * math.sin(step)) * (50 if step == SPIKE else 1)
            if step == POISON:
                poison(next(iter(named.values())).grad)
            result: ClipResult = clipper.clip_(net)
            grads = {name: whole(param.grad).detach().clone() for name, param in named.items()}
            steps.append({"grads": grads, **{k: torch.as_tensor(v) for k, v in result._asdict().items()}})
        seen[kind] = {"steps": steps, "state": state(clipper)}
    return seen


def unsharded() -> dict[str, Any]:
    net = model()
    backward(net)
    return clip_all(net, dict(net.named_parameters()), lambda grad: grad.view(-1)[-1].fill_(math.nan))


def _start(rank: int, world: int, folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=world)


def _poison_last_rank(grad: Any) -> None:
    """Put a NaN where the second rank alone holds it."""
    if dist.get_rank() == 1:
        grad.to_local().view(-1)[-1] = math.nan


def fsdp2(rank: int, world: int, folder: str) -> None:
    from torch.distributed.fsdp import fully_shard

    _start(rank, world, folder)
    net = model()
    for layer in net.children():
        fully_shard(layer)
    fully_shard(net)
    backward(net)
    torch.save(clip_all(net, dict(net.named_parameters()), _poison_last_rank), Path(folder) / f"{rank}.pt")
    dist.barrier()  # a rank that leaves while the other one still reads aborts it
    dist.destroy_process_group()


def placements(rank: int, world: int, folder: str) -> None:
    """Every layer is sharded on the second axis where it has one; one of them on a mesh of its own, one replicated."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    _start(rank, world, folder)
    flat, square = init_device_mesh("cpu", (world,)), init_device_mesh("cpu", (world, 1))
    net = model()
    backward(net)
    for layer, mesh in zip(net.children(), (flat, flat, flat, square, flat), strict=True):
        for name, param in list(layer.named_parameters()):
            on_axis = [Shard(1)] if param.ndim > 1 else [Replicate()] if layer is net.last else [Shard(0)]
            where = on_axis if mesh is flat else [*on_axis, Shard(0)]
            sharded = nn.Parameter(distribute_tensor(param.detach(), mesh, where))
            sharded.grad = distribute_tensor(param.grad, mesh, where)
            setattr(layer, name, sharded)
    torch.save(clip_all(net, dict(net.named_parameters()), _poison_last_rank), Path(folder) / f"{rank}.pt")
    dist.barrier()  # a rank that leaves while the other one still reads aborts it
    dist.destroy_process_group()


def unreduced(rank: int, world: int, folder: str) -> None:
    """Gradients whose parts still have to be added up."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, distribute_tensor

    _start(rank, world, folder)
    mesh = init_device_mesh("cpu", (world,))
    values, grad = (torch.randn(3, 5, generator=torch.Generator().manual_seed(s)) for s in range(2))
    seen: dict[str, Any] = {"weight": values, "grad": grad}
    for kind in ("norm", "value", "agc", "adagc", "band"):
        param = nn.Parameter(distribute_tensor(values, mesh, [Replicate()]))
        param.grad = DTensor.from_local(grad * (0.25 if rank else 0.75), mesh, [Partial()])
        try:
            PerModule({"*": CLIPPERS[kind]()} if kind != "agc" else {"*": AGC(0.02, exclude=())}).clip_(
                [("weight", param)]
            )
            seen[kind] = whole(param.grad)
        except ValueError as error:
            seen[kind] = str(error)
    torch.save(seen, Path(folder) / f"{rank}.pt")
    dist.barrier()  # a rank that leaves while the other one still reads aborts it
    dist.destroy_process_group()
