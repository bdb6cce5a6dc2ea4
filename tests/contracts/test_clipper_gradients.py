"""Every clipper takes every kind of gradient, and clips it as it clips the same numbers in a dense float64 tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.clip.steps import reported
from tests.contracts.clippers import CLIPPERS, SHAPES, WARMUP, Loop, gradients

EACH = pytest.mark.parametrize("kind", CLIPPERS)
STEPS = 2 * WARMUP + 2


def run(
    kind: str,
    change: Callable[[int, Tensor], Tensor | None] = lambda position, grad: grad,
    *,
    dtypes: Sequence[torch.dtype] = (torch.float64,) * 3,
) -> Iterator[list[Tensor | None]]:
    """Clip ten steps, the last but one a spike, whose gradients are changed before; give them as they are after it."""
    loop = Loop(CLIPPERS[kind](), dtype=torch.float64)
    for param, dtype in zip(loop.params, dtypes, strict=True):
        param.data = param.data.to(dtype)
    for step in range(STEPS):
        grads = gradients(step, 30.0 if step == STEPS - 2 else 1.0, torch.float64)
        loop.step([change(i, grad) for i, grad in enumerate(grads)])
        yield loop.grads


def assert_alike(
    kind: str, found: Iterator[list[Tensor | None]], right: Iterator[list[Tensor | None]], rtol: float
) -> None:
    moved = 0
    for step, (some, others) in enumerate(zip(found, right, strict=True)):
        for a, b in zip(some, others, strict=True):
            if a is None or b is None:
                assert a is b
                continue
            dense = a.to_dense() if a.is_sparse else a
            torch.testing.assert_close(dense.double(), b.double(), rtol=rtol, atol=1e-9 if rtol > 1e-6 else 0)
        raw = gradients(step, 30.0 if step == STEPS - 2 else 1.0, torch.float64)
        moved += others[0] is not None and not torch.equal(others[0], raw[0])
    assert moved, "nothing was clipped, so that nothing was tested"


def sparse(grad: Tensor, *, coalesced: bool) -> Tensor:
    """Give the first and last row of a matrix as a sparse gradient, the last in two halves where it is uncoalesced."""
    rows = torch.tensor([0, len(grad) - 1, len(grad) - 1])
    whole = torch.sparse_coo_tensor(
        rows.unsqueeze(0), torch.stack([grad[0], grad[-1] / 4, grad[-1] * 3 / 4]), grad.shape, check_invariants=True
    )
    return whole.coalesce() if coalesced else whole


def two_rows(position: int, grad: Tensor) -> Tensor:
    return torch.cat([grad[:1], torch.zeros_like(grad[1:-1]), grad[-1:]]) if grad.ndim == 2 else grad


@EACH
@pytest.mark.parametrize("coalesced", [True, False])
def test_sparse_gradients(kind: str, coalesced: bool) -> None:
    found = run(kind, lambda position, grad: sparse(grad, coalesced=coalesced) if grad.ndim == 2 else grad)
    assert_alike(kind, found, run(kind, two_rows), 1e-12)


@EACH
def test_a_sparse_embedding_stays_sparse(kind: str) -> None:
    torch.manual_seed(0)
    tables = [nn.Embedding(6, 3, sparse=is_sparse, dtype=torch.float64) for is_sparse in (True, False)]
    tables[1].load_state_dict(tables[0].state_dict())
    clippers = [CLIPPERS[kind]() for _ in tables]
    for step in range(STEPS):
        tokens = torch.tensor([1, 4, 4, step % 6, 1])
        for table, clipper in zip(tables, clippers, strict=True):
            table.zero_grad()
            (table(tokens).square().sum() * (50 if step == STEPS - 2 else 0.1)).backward()
            clipper.clip_([("first.weight", table.weight)])
        assert tables[0].weight.grad.is_sparse
        torch.testing.assert_close(tables[0].weight.grad.to_dense(), tables[1].weight.grad, rtol=1e-12, atol=0)


@EACH
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float32, 1e-5)])
def test_gradients_of_every_real_type(kind: str, dtype: torch.dtype, rtol: float) -> None:
    found = run(kind, lambda position, grad: grad.to(dtype), dtypes=[dtype] * 3)
    right = run(kind, lambda position, grad: grad.to(dtype).double())
    assert_alike(kind, found, right, rtol)


@EACH
def test_gradients_of_several_types_at_once(kind: str) -> None:
    dtypes = [torch.float16, torch.float64, torch.float32]
    found = run(kind, lambda position, grad: grad.to(dtypes[position]), dtypes=dtypes)
    right = run(kind, lambda position, grad: grad.to(dtypes[position]).double())
    assert_alike(kind, found, right, 2e-3)


@EACH
def test_half_gradients_whose_norm_is_no_half(kind: str) -> None:
    loop = Loop(CLIPPERS[kind](), dtype=torch.float16, shapes={"first.weight": (40, 40), "last.weight": (2, 40)}).params
    for param in loop:
        param.grad = torch.full_like(param, 60_000.0)
    result = CLIPPERS[kind]().clip_([("first.weight", loop[0]), ("last.weight", loop[1])])
    assert result.finite
    assert result.norm == pytest.approx(60_000 * 1680**0.5, rel=1e-3) or "largest" in kind
    assert all(param.grad.isfinite().all() for param in loop)


@pytest.mark.parametrize("kind", sorted(set(CLIPPERS) - {"NormBand", "GradientStabilizer"}))  # which may lift them
def test_half_gradients_that_carry_a_loss_scale_which_is_no_half(kind: str) -> None:
    half, wide = Loop(CLIPPERS[kind](), dtype=torch.float16), Loop(CLIPPERS[kind](), dtype=torch.float64)
    for here, there in zip(half.params, wide.params, strict=True):
        there.data.copy_(here.detach())
    scale = torch.tensor(2.0**19)
    for step in range(STEPS):
        grads = gradients(step, 1.0 if step == STEPS - 2 else 0.05, torch.float64)
        scaled = [(grad.clamp(-0.12, 0.12) * scale).half() for grad in grads]
        half.step(scaled, scale=scale)
        wide.step([grad.double() / scale for grad in scaled])
        for a, b in zip(half.grads, wide.grads, strict=True):
            torch.testing.assert_close(a.double() / scale, b, rtol=2e-3, atol=0)


@EACH
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_gradients_are_clipped_by_their_absolute_values(kind: str, dtype: torch.dtype) -> None:
    shapes = {"first.weight": (3, 2), "last.weight": (2, 2)}
    phase = torch.polar(torch.ones(()), torch.tensor(0.7)).to(dtype)
    whole, absolute = (
        Loop(CLIPPERS[kind](), dtype=dtype, shapes=shapes),
        Loop(CLIPPERS[kind](), dtype=torch.float64, shapes=shapes),
    )
    for here, there in zip(whole.params, absolute.params, strict=True):
        there.data = here.detach().abs().double()
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        sizes = [0.3 * torch.rand(3, 2, generator=generator), 0.3 * torch.rand(2, 2, generator=generator)]
        sizes = [(30 if step == STEPS - 2 else 1) * size.double() for size in sizes]
        whole.step([(size * phase).to(dtype) for size in sizes])
        absolute.step(sizes)
        for a, b in zip(whole.grads, absolute.grads, strict=True):
            torch.testing.assert_close(a / phase, b.to(dtype), rtol=1e-5, atol=1e-7)


@EACH
def test_scalars_and_empty_tensors(kind: str) -> None:
    shapes = {
        "first.weight": (3, 2),
        "last.scalar": (),
        "last.nothing": (0, 3),
        "last.none": (3, 0),
        "last.empty": (0,),
    }
    loop = Loop(CLIPPERS[kind](), dtype=torch.float64, shapes=shapes)
    bare = Loop(CLIPPERS[kind](), dtype=torch.float64, shapes={"first.weight": (3, 2), "last.scalar": ()})
    for step in range(STEPS):
        grads = gradients(step, 30.0 if step == STEPS - 2 else 1.0, torch.float64)
        some = [grads[0], grads[1][0]]
        factors = loop.step([*some, *(torch.zeros(shape, dtype=torch.float64) for shape in ((0, 3), (3, 0), (0,)))])
        assert reported(factors)[:, 1].isfinite().all()
        bare.step(some)
        for a, b in zip(loop.grads, bare.grads, strict=False):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


@EACH
def test_missing_gradients_stay_missing_and_the_others_are_clipped_as_without_them(kind: str) -> None:
    loop, bare = (
        Loop(CLIPPERS[kind](), dtype=torch.float64, shapes=shapes) for shapes in (SHAPES, dict([*SHAPES.items()][::2]))
    )
    for here, there in zip(bare.params, loop.params[::2], strict=True):
        here.data.copy_(there.detach())
    for step in range(STEPS):
        grads = gradients(step, 30.0 if step == STEPS - 2 else 1.0, torch.float64)
        loop.step([grads[0], None, grads[2]])
        bare.step([grads[0], grads[2]])
        assert loop.grads[1] is None
        for a, b in zip(loop.grads[::2], bare.grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


@EACH
def test_tied_and_duplicate_parameters_count_once_and_generators_are_taken(kind: str) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.last.weight = self.first.weight

    torch.manual_seed(0)
    model = Tied()
    given = {
        "module": lambda: model,
        "named": lambda: model.named_parameters(remove_duplicate=False),
        "twice": lambda: ((name, model.first.weight) for name in ("first.weight", "first.weight", "last.weight")),
        "once": lambda: [("first.weight", model.first.weight)],
    }
    clipped = {}
    for way, params in given.items():
        clipper = CLIPPERS[kind]()
        for step in range(STEPS):
            model.first.weight.grad = torch.full((3, 3), 30.0 if step == STEPS - 2 else 0.1)
            result = clipper.clip_(params())
            if step == STEPS - 2:
                clipped[way] = model.first.weight.grad.clone()
                assert result.norm == pytest.approx(90.0, rel=1e-6) or "largest" in kind
    assert all(torch.equal(grads, clipped["once"]) for grads in clipped.values())
    assert not torch.equal(clipped["once"], torch.full((3, 3), 30.0))
