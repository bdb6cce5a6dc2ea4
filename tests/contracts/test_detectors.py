"""What every detector promises. A public one that is not listed here fails."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradguard import detect
from gradguard.detect import ADVICE, AbstractDetector, Activations, Block, GateStatistics, InTime
from tests.detect import activations
from tests.detect.blocks import block, clips, cut, layout, noisy
from tests.detect.in_time import gate, profile, sample

OF = layout(8, bias=True)
SAMPLED = [1, 2, 4, 8, 16, 32, 50, 100, 150, 200]


def ratios(value: float) -> dict[int, list[float]]:
    return {step: [value] * len(OF.names) for step in SAMPLED}


def in_time(memory: float, *gates: GateStatistics, lag: int | None = None) -> list[InTime]:
    return [sample(step, profile(memory, gates=gates), lag=lag) for step in SAMPLED]


def layers(**changes: float) -> list[Activations]:
    useless = {name: changes.pop(name) for name in ("silent", "saturated") if name in changes}
    return [
        activations.sample(step, activations.units(**useless), signals=activations.signals(**changes))
        for step in SAMPLED
    ]


def falling(*, slope: float = 0.02, seed: int = 0) -> dict[int, float]:
    noise = 1 + 0.1 * torch.randn(200, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {step: float(noise[step - 1] * (0.2 + 2 * math.exp(-slope * step))) for step in range(1, 201)}


def healthy(seed: int = 0, **changes: object) -> Block:
    usual = {"ratios": ratios(1e-3), "in_time": in_time(0.99, gate("f", 0.7), gate("o", 0.5))}
    usual |= {"activations": layers(silent=0.3, saturated=0.3), "losses": falling(seed=seed), "moved": 1e-3}
    return block(OF, noisy(200, OF, spread=0.2, seed=seed), **{**usual, **changes})


def with_nan() -> Block:
    norms = noisy(200, OF)
    norms[150:, 3] = math.nan
    return block(OF, norms, ratios=ratios(1e-3))


def without_gradient() -> Block:
    norms = noisy(200, OF)
    norms[:150, 3] = 0
    return block(OF, norms, ratios=ratios(1e-3))


def clipped_upstream() -> Block:
    norms = noisy(200, OF, spread=0.3)
    return block(OF, norms / torch.linalg.vector_norm(norms, dim=1, keepdim=True), ratios=ratios(1e-3))


def clipped_too_often() -> Block:
    return healthy(clips=clips(torch.full((200,), 0.2)))


# Each public detector with a run in which it has something to say.
SICK = {
    detect.NonFinite: with_nan,
    detect.VanishingDepth: lambda: block(OF, noisy(200, OF, 9.0), ratios=ratios(1e-3)),
    detect.ExplodingDepth: lambda: block(OF, noisy(200, OF, -9.0), ratios=ratios(1e-3)),
    detect.NoGradient: without_gradient,
    detect.UpdateTooLarge: lambda: healthy(ratios=ratios(1.5)),
    detect.UpdateTooSmall: lambda: healthy(ratios=ratios(1e-9)),
    detect.ClippedTooOften: clipped_too_often,
    detect.ClippedUpstream: clipped_upstream,
    detect.DeadUnits: lambda: healthy(activations=layers(silent=0.8)),
    detect.SaturatedUnits: lambda: healthy(activations=layers(saturated=0.8)),
    detect.PoorInitialisation: lambda: healthy(activations=layers(distinct=1e-5)),
    detect.LossSpike: lambda: healthy(losses=falling() | dict.fromkeys(range(151, 201), 3.0)),
    detect.OscillatingLoss: lambda: healthy(losses=falling(slope=0.1) | {s: 1 + s / 100 for s in range(80, 201)}),
    detect.SlowConvergence: lambda: healthy(losses=falling(slope=1e-5), moved=1e-5),
    detect.ExplodingTime: lambda: healthy(in_time=in_time(1.1)),
    detect.VanishingTime: lambda: healthy(in_time=in_time(0.9, lag=100), losses=None),
    detect.SaturatedGates: lambda: healthy(in_time=in_time(0.99, gate("f", 0.01, shut=0.75))),
}


def test_every_public_detector_is_under_contract_and_in_the_default_set() -> None:
    public = {
        cls
        for _, cls in inspect.getmembers(detect, inspect.isclass)
        if issubclass(cls, AbstractDetector) and not inspect.isabstract(cls)
    }
    assert public == set(SICK) == {type(d) for d in detect.default_detectors(through_time=True)}


@pytest.mark.parametrize("kind", SICK, ids=lambda kind: kind.__name__)
class TestContract:
    def test_says_nothing_about_a_healthy_run(self, kind: type[AbstractDetector]) -> None:
        for seed in range(5):
            detector = kind()
            detector.observe(healthy(seed))
            assert detector.findings() == ()

    def test_finds_its_symptom_once_with_advice_and_a_printed_form(self, kind: type[AbstractDetector]) -> None:
        detector = kind()
        detector.observe(SICK[kind]())
        (finding,) = detector.findings()
        assert detector.findings() == (finding,)
        assert finding.optimizer == "optimizer"
        assert 1 <= finding.first_step <= finding.last_step <= 200
        assert finding.advice == ADVICE[finding.symptom]
        text = " ".join(str(finding).split())
        for part in (finding.severity.value, finding.symptom.value, finding.explanation, *finding.advice):
            assert part in text
        assert all(len(line) <= 100 for line in str(finding).splitlines())

    @given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8))
    def test_finds_the_same_whatever_the_blocks_are(self, kind: type[AbstractDetector], sizes: list[int]) -> None:
        whole, parts = kind(), kind()
        whole.observe(SICK[kind]())
        for part in cut(SICK[kind](), sizes):
            parts.observe(part)
        assert parts.findings() == whole.findings()

    def test_takes_in_no_overflow_step(self, kind: type[AbstractDetector]) -> None:
        norms = noisy(200, OF, spread=0.2)
        norms[::3] = math.inf
        detector = kind()
        overflow = list(range(1, 201, 3))
        moved = {s: [math.nan if s in overflow else 1e-3] * len(OF.names) for s in SAMPLED}
        detector.observe(block(OF, norms, overflow=overflow, ratios=moved))
        assert detector.findings() == ()

    def test_copies_and_pickles_go_on_alone(self, kind: type[AbstractDetector]) -> None:
        first, second = cut(SICK[kind](), [100])
        detector = kind()
        detector.observe(first)
        before = detector.findings()
        for twin in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
            twin.observe(second)
        assert detector.findings() == before
        detector.observe(second)
        assert detector.findings() == twin.findings()

    @pytest.mark.parametrize("at", [7, 100, 160])
    def test_a_fresh_one_goes_on_from_its_saved_state(
        self, kind: type[AbstractDetector], at: int, tmp_path: Path
    ) -> None:
        first, second = cut(SICK[kind](), [at, 200 - at])
        detector, resumed = kind(), kind()
        detector.observe(first)
        torch.save(detector.state_dict(), tmp_path / "state.pt")
        detector.observe(second)
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        resumed.observe(second)
        assert resumed.findings() == detector.findings() != ()
        assert repr(resumed.state_dict()) == repr(detector.state_dict())

    def test_its_state_does_not_grow_with_the_run(self, kind: type[AbstractDetector]) -> None:
        detector, sizes = kind(), []
        for i in range(4):
            steps = {i * 200 + s: [1e-3] * len(OF.names) for s in SAMPLED}
            detector.observe(block(OF, noisy(200, OF, spread=0.2), first_step=i * 200 + 1, ratios=steps))
            sizes.append(len(pickle.dumps(detector)))
        assert max(sizes[1:]) <= sizes[0] + 64

    def test_an_empty_block_and_new_parameters_are_no_trouble(self, kind: type[AbstractDetector]) -> None:
        detector = kind()
        detector.observe(block(OF, torch.zeros(0, len(OF.names))))
        detector.observe(healthy())
        wider = layout(9, bias=True)
        steps = {s: [1e-3] * len(wider.names) for s in (250, 300)}
        detector.observe(block(wider, noisy(200, wider, spread=0.2), first_step=201, ratios=steps))
        assert detector.findings() == ()
