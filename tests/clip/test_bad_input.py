"""What is refused, and with which words: need, got, mend."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from gradguard import GradGuardWarning
from gradguard.clip import (
    AGC,
    AdaGC,
    AutoClip,
    Ema,
    GradientStabilizer,
    MedianMad,
    NormBand,
    NormClip,
    PerModule,
    Reciprocal,
    ValueClip,
    ZClip,
)
from gradguard.recover import Skip

NO_NUMBERS = [True, "1", None, [1.0], 1j, torch.tensor(1.0)]

# What each number has to be: the argument, what it is refused with, what it needs, what is refused.
NUMBERS: list[tuple[Callable[..., Any], str, str, list[float]]] = [
    (lambda x: NormClip(x), "NormClip needs max_norm", "> 0", [0, -1, math.nan, -math.inf]),
    (lambda x: NormClip(1.0, norm_type=x), "NormClip needs norm_type", "> 0", [0, -2, math.nan]),
    (lambda x: NormClip(1.0, eps=x), "NormClip needs eps", ">= 0", [-1e-9, math.nan]),
    (lambda x: ValueClip(x, 1.0), "ValueClip needs low", "", [0, 1, math.nan]),
    (lambda x: ValueClip(-1.0, x), "ValueClip needs", "", [0, -1, math.nan]),
    (lambda x: NormBand(x, 1.0), "NormBand needs min_norm", ">= 0", [-1, math.nan]),
    (lambda x: NormBand(0.0, x), "NormBand needs max_norm", "> 0", [0, -1, math.nan]),
    (lambda x: AutoClip(x), "AutoClip needs", "percentile", [-0.1, 100.1, math.inf, math.nan]),
    (lambda x: AutoClip(eps=x), "AutoClip needs eps", ">= 0", [-1, math.nan]),
    (lambda x: ZClip(x), "ZClip needs z_threshold", "> 0", [0, -1, math.nan]),
    (lambda x: ZClip(max_norm=x), "ZClip needs max_norm", "> 0", [0, -1, math.nan]),
    (lambda x: ZClip(clip_factor=x), "ZClip needs", "clip_factor", [0, -0.5, 1.01, math.inf, math.nan]),
    (lambda x: ZClip(sigma_floor=x), "ZClip needs sigma_floor", ">= 0", [-0.1, math.nan]),
    (lambda x: ZClip(eps=x), "ZClip needs eps", ">= 0", [-0.1, math.nan]),
    (lambda x: Ema(x), "Ema needs", "alpha", [1, 1.5, -0.1, math.nan]),
    (lambda x: AdaGC(relative=x), "AdaGC needs relative", "> 0", [0, -1, math.nan]),
    (lambda x: AdaGC(absolute=x), "AdaGC needs absolute", "> 0", [0, -1, math.nan]),
    (lambda x: AdaGC(beta=x), "AdaGC needs", "beta", [1, -0.1, math.nan]),
    (lambda x: AdaGC(floor=x), "AdaGC needs floor", ">= 0", [-1, math.nan]),
    (lambda x: GradientStabilizer(gamma1=x), "GradientStabilizer needs", "gamma1", [1, -0.1, math.nan]),
    (lambda x: GradientStabilizer(gamma2=x), "GradientStabilizer needs", "gamma2", [1, -0.1, math.nan]),
    (lambda x: AGC(x, exclude=()), "AGC needs", "clipping", [0, -1, math.nan, math.inf]),
    (lambda x: AGC(eps=x, exclude=()), "AGC needs", "eps", [0, -1, math.nan, math.inf]),
]
OPTIONAL = {"ZClip needs max_norm"}


@pytest.mark.parametrize(("make", "who", "need", "bad"), NUMBERS, ids=[f"{who} {need}" for _, who, need, _ in NUMBERS])
def test_a_number_that_is_out_of_range_is_refused(
    make: Callable[..., Any], who: str, need: str, bad: list[float]
) -> None:
    for value in bad:
        with pytest.raises(ValueError, match=rf"{who}.*{need}.*, got .*{re.escape(repr(value))}"):
            make(value)


@pytest.mark.parametrize(("make", "who", "need", "bad"), NUMBERS, ids=[f"{who} {need}" for _, who, need, _ in NUMBERS])
def test_what_is_no_number_is_refused(make: Callable[..., Any], who: str, need: str, bad: list[float]) -> None:
    for value in NO_NUMBERS:
        if value is None and who in OPTIONAL:
            continue
        with pytest.raises(TypeError, match=rf"{who}.* to be a number, got {re.escape(repr(value))}"):
            make(value)


COUNTS: list[tuple[Callable[..., Any], str, int]] = [
    (lambda x: AutoClip(window=x), "AutoClip needs window", 1),
    (lambda x: AutoClip(reanchor=x), "AutoClip needs reanchor", 2),
    (lambda x: ZClip(reanchor=x), "ZClip needs reanchor", 2),
    (lambda x: AdaGC(reanchor=x), "AdaGC needs reanchor", 2),
    (lambda x: AdaGC(warmup=x), "AdaGC needs warmup", 1),
    (lambda x: GradientStabilizer(reanchor=x), "GradientStabilizer needs reanchor", 2),
    (lambda x: Ema(warmup=x), "Ema needs warmup", 1),
    (lambda x: MedianMad(window=x, warmup=1), "MedianMad needs window", 2),
    (lambda x: MedianMad(warmup=x), "MedianMad needs warmup", 1),
    (lambda x: Skip(x), "Skip needs budget", 0),
]


@pytest.mark.parametrize(("make", "who", "least"), COUNTS, ids=[who for _, who, _ in COUNTS])
def test_a_count_that_is_none_is_refused(make: Callable[..., Any], who: str, least: int) -> None:
    for value in (least - 1, -5, 2.0, math.nan, True, False, "3"):
        with pytest.raises(ValueError, match=rf"{who} to be an integer >= {least}, got {re.escape(repr(value))}"):
            make(value)
    make(least)


def test_the_edges_of_the_ranges_are_allowed() -> None:
    for make in (
        lambda: NormClip(math.inf, eps=0),
        lambda: NormClip(1, norm_type="inf"),
        lambda: ValueClip(-1, math.inf),
        lambda: NormBand(0, math.inf),
        lambda: NormBand(1, 1),
        lambda: AutoClip(0),
        lambda: AutoClip(100, reanchor=None),
        lambda: ZClip(clip_factor=1, sigma_floor=0, reanchor=None, max_norm=math.inf),
        lambda: AdaGC(absolute=math.inf, beta=0, floor=0, reanchor=None),
        lambda: GradientStabilizer(gamma1=0, gamma2=0, reanchor=None),
        lambda: Ema(0),
        lambda: MedianMad(window=2, warmup=2),
        lambda: Skip(0),
    ):
        make()


def test_a_value_clip_may_have_one_bound_only() -> None:
    for low, high, clipped in ((-math.inf, 1.0, [-5, 0.5, 1]), (-1.0, math.inf, [-1, 0.5, 5])):
        weight = nn.Parameter(torch.zeros(3))
        weight.grad = torch.tensor([-5.0, 0.5, 5.0])
        ValueClip(low, high).clip_([weight])
        assert weight.grad.tolist() == clipped


def test_limits_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match=r"NormBand needs min_norm <= max_norm, got 2\.0 and 1\.0"):
        NormBand(2.0, 1.0)
    with pytest.raises(ValueError, match=r"ValueClip needs low < 0 < high, got 1\.0 and -1\.0: .* turn gradients"):
        ValueClip(1.0, -1.0)
    with pytest.raises(ValueError, match=r"MedianMad needs warmup <= window, got 25 and 10"):
        MedianMad(window=10)


def test_parts_that_are_none_are_refused_and_a_class_is_told_to_be_called() -> None:
    for name, right in (("baseline", Ema), ("target", Reciprocal)):
        with pytest.raises(TypeError, match=rf"ZClip needs {name} to be an Abstract\w+ object, got 3"):
            ZClip(**{name: 3})
        with pytest.raises(TypeError, match=rf"ZClip needs {name} .* Write {right.__name__}\(\)"):
            ZClip(**{name: right})


def test_what_is_excluded_from_agc_has_to_be_a_pattern_or_a_module() -> None:
    for bad in ([3], [nn.Parameter(torch.zeros(2))], ["head", None], [nn.Linear]):
        with pytest.raises(TypeError, match="AGC needs exclude to hold patterns or modules, got"):
            AGC(exclude=bad)
    assert AGC(exclude="head").patterns == ("head",)


def test_agc_warns_where_nobody_said_what_is_excluded() -> None:
    model = nn.Linear(2, 2)
    with pytest.warns(GradGuardWarning, match=r"AGC clips every weight, the output layer too.*exclude=\(\)"):
        AGC().clip_(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AGC(exclude=()).clip_(model)
        AGC(exclude=[model]).clip_(model)


@pytest.mark.parametrize("clippers", [{}, [("*", NormClip(1.0))], None, NormClip(1.0)])
def test_a_clipper_of_modules_needs_a_clipper_for_each_pattern(clippers: Any) -> None:
    with pytest.raises(ValueError, match="PerModule needs a dict with a clipper for each pattern, got"):
        PerModule(clippers)


def test_a_clipper_of_modules_takes_clippers_and_none_of_its_own_kind() -> None:
    with pytest.raises(TypeError, match=r"PerModule needs a clipper for '\*', got 1\.0"):
        PerModule({"*": 1.0})
    with pytest.raises(TypeError, match="PerModule needs a clipper for 'head', got <class"):
        PerModule({"*": NormClip(1.0), "head": ZClip})
    with pytest.raises(TypeError, match="PerModule needs plain clippers, got another PerModule for 'head'"):
        PerModule({"head": PerModule({"*": NormClip(1.0)})})


@pytest.mark.parametrize(
    ("pattern", "close"),
    [("encodr", "encoder"), ("encoder.linaer.*", r"encoder\.linear"), ("*.wieght", r"\w+\.weight")],
)
def test_a_pattern_that_matches_nothing_names_the_closest_names(pattern: str, close: str) -> None:
    model = nn.ModuleDict({"encoder": nn.ModuleDict({"linear": nn.Linear(2, 2)}), "head": nn.Linear(2, 2)})
    message = rf"the pattern {re.escape(repr(pattern))} matches none of 4 parameters\. The closest names are .*{close}"
    for clipper, who in (
        (PerModule({pattern: NormClip(1.0), "*": ZClip()}), "PerModule"),
        (AGC(exclude=[pattern]), "AGC"),
    ):
        with pytest.raises(ValueError, match=f"{who}: {message}"):
            clipper.clip_(model)
        with pytest.raises(ValueError, match=message):
            PerModule({"*": AGC(exclude=[pattern])}).clip_(model)


def test_bare_tensors_are_refused_where_names_are_needed() -> None:
    params = [nn.Parameter(torch.zeros(2))]
    for clipper in (AdaGC(), PerModule({"*": NormClip(1.0)}), AGC(exclude=["head"])):
        with pytest.raises(ValueError, match=r"goes by the names of the parameters, got bare ones\. Pass the model"):
            clipper.clip_(params)
    with pytest.raises(ValueError, match="goes by the names"):
        AdaGC().clip_(params[0])


@pytest.mark.parametrize("bad", [[3], [("weight", None)], [{"params": []}], ["weight"]])
def test_what_is_no_parameter_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"clip_ needs a module, its named_parameters\(\) or parameters, got"):
        NormClip(1.0).clip_(bad)


def test_unequal_bounds_are_refused_for_a_complex_parameter() -> None:
    z = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    z.grad = torch.ones(2, dtype=torch.complex64)
    with pytest.raises(ValueError, match=r"needs low = -high for z, got -1\.0 and 2\.0"):
        ValueClip(-1.0, 2.0).clip_([("z", z)])
    ValueClip(-0.5, 0.5).clip_([("z", z)])
    assert z.grad.abs().tolist() == [0.5, 0.5]
