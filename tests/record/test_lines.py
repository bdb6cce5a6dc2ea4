"""Lines of a record: what was packed comes back bit for bit, what was damaged is never taken for a number."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from gradguard.detect import Layout, Role
from gradguard.record import (
    Event,
    Points,
    event_from_plain,
    event_to_plain,
    finding_from_plain,
    finding_to_plain,
    layout_from_plain,
    layout_to_plain,
)
from gradguard.record.lines import content_of, event_line, line, pack, points_line, points_of, unpack
from tests.record.records import bits, finding

VALUES = {
    torch.float32: st.floats(width=32),
    torch.float64: st.floats(),
    torch.int64: st.integers(-(2**63), 2**63 - 1),
}


@pytest.mark.parametrize("dtype", VALUES, ids=str)
@given(data=st.data())
def test_numbers_come_back_bit_for_bit(dtype: torch.dtype, data: st.DataObject) -> None:
    values = torch.tensor(data.draw(st.lists(VALUES[dtype], max_size=30)), dtype=dtype)
    back = unpack(pack(values))
    assert back.dtype is dtype
    assert back.shape == values.shape
    if dtype.is_floating_point:
        assert torch.equal(back.isnan(), values.isnan())  # a NaN is a NaN: its payload is nobody's
        back, values = back.nan_to_num(nan=0.25), values.nan_to_num(nan=0.25)
    assert torch.equal(bits(back), bits(values))


def test_they_are_little_endian_whatever_the_machine() -> None:
    assert json.loads(line({"x": pack(torch.tensor([1.5, -math.inf]))}))["x"] == "fAADAPwAAgP8="
    assert pack(torch.tensor([258])) == "qAgEAAAAAAAA="
    assert unpack("dAAAAAAAA+D8=").tolist() == [struct.unpack("<d", bytes.fromhex("000000000000f83f"))[0]] == [1.5]


@given(r=st.integers(0, 5), n=st.integers(1, 4), is_merged=st.booleans(), dtype=st.sampled_from(["f", "d"]))
def test_a_table_comes_back_with_its_shape(r: int, n: int, is_merged: bool, dtype: str) -> None:
    last = torch.randn(r, n, dtype=torch.float32 if dtype == "f" else torch.float64)
    low, high = (last - 1, last + 1) if is_merged else (last, last)
    steps = torch.arange(r) * 3 + 1
    text = points_line("grad_norm", 7, Points(steps, last, low, high))
    content = content_of(text)
    assert (content["points"], content["columns"]) == ("grad_norm", 7)
    back = points_of(content, n)
    for found, expected in zip(back, (steps, last, low, high), strict=True):
        assert found.dtype is expected.dtype
        assert torch.equal(found, expected)
    assert (back.low is back.last) is not is_merged, "plain rows are written and held once"


def test_nothing_moves_to_a_default_device() -> None:
    text = points_line("x", 1, Points(torch.tensor([1]), *(torch.ones(1, 1),) * 3))
    nothing = pack(torch.zeros(0))
    with torch.device("meta"):
        found = points_of(content_of(text), 1)
        assert unpack(nothing).device.type == "cpu"
    assert found.last.tolist() == [[1.0]]


@pytest.mark.parametrize(
    "text", ["", "f", "fAA", "xAAAA", "fAAAAAAA=A", "f\u00e9AAA", "fAAAA", 5, None, ["f"], "dAAAAAA=="]
)
def test_damaged_numbers_are_an_error(text: object) -> None:
    if text == "f":
        assert unpack("f").tolist() == []
        return
    with pytest.raises(ValueError):  # noqa: PT011  # of several parts, each in its own words
        unpack(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "width"),
    [
        ({"last": pack(torch.ones(3))}, 2),
        ({"low": pack(torch.ones(6))}, 2),
        ({"steps": pack(torch.ones(2))}, 2),
        ({"steps": pack(torch.tensor([2, 1]))}, 2),
        ({"steps": pack(torch.tensor([2, 2]))}, 2),
        ({"last": pack(torch.ones(4, dtype=torch.int64))}, 2),
        ({"last": pack(torch.ones(0))}, 0),
    ],
)
def test_a_table_that_does_not_hold_what_it_says_is_an_error(change: dict[str, str], width: int) -> None:
    content = {"steps": pack(torch.tensor([1, 2])), "last": pack(torch.ones(4))}
    assert points_of(content, 2).last.shape == (2, 2)
    with pytest.raises(ValueError, match=r"do not match|do not rise"):
        points_of(content | change, width)


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_bit_that_flips_is_noticed(at: int, bit: int) -> None:
    text = bytearray(points_line("grad_norm", 7, Points(torch.tensor([1]), *(torch.ones(1, 3),) * 3)))
    assert content_of(bytes(text))["points"] == "grad_norm"
    text[at % len(text)] ^= 1 << bit
    with pytest.raises(ValueError, match="checksum"):
        content_of(bytes(text))


EVIDENCE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats()
    | st.text(max_size=5).filter(lambda t: "n" not in t),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@example({"total": math.nan, "by": {"a": [math.inf, {"b": -math.inf}]}, "kind": "NaN"}, 3, True)
@given(st.dictionaries(st.text(max_size=8), EVIDENCE, max_size=4), st.integers(1, 2**40), st.booleans())
def test_an_event_comes_back_nan_and_inf_included(evidence: dict[str, object], step: int, active: bool) -> None:
    found = replace(finding(2, step, active=active), evidence=evidence)
    event = Event(step, found)
    back = event_from_plain(content_of(event_line(event))["event"])
    assert repr(back) == repr(event)
    assert repr(finding_from_plain(finding_to_plain(found))) == repr(found)


def test_what_else_evidence_holds_becomes_what_a_checkpoint_can_hold() -> None:
    numpy = pytest.importorskip("numpy")
    evidence = finding_to_plain(finding(a=numpy.float64(2.0), b=(1, 2), c={3: Role.BIAS}, d=torch.tensor(1)))[
        "evidence"
    ]
    assert evidence == {"a": 2.0, "b": [1, 2], "c": {"3": "bias"}, "d": "tensor(1)"}
    assert type(evidence["a"]) is float


@pytest.mark.parametrize("change", [{"symptom": "hunger"}, {"first_step": "x"}, {"where": 3}, {"evidence": [1]}])
def test_a_damaged_event_is_an_error(change: dict[str, object]) -> None:
    plain = event_to_plain(Event(5, finding()))
    with pytest.raises((ValueError, TypeError)):
        event_from_plain({"step": 5, "finding": {**plain["finding"], **change}})
    with pytest.raises(KeyError):
        event_from_plain({"finding": plain["finding"]})


def test_a_layout_comes_back_whole() -> None:
    layout = Layout("g", ("a.weight",), ("a",), (12,), (Role.WEIGHT,), math.inf, 2.0**-7)
    assert layout_from_plain(layout_to_plain(layout)) == layout
    assert layout_from_plain(json.loads(json.dumps(layout_to_plain(layout), allow_nan=False))) == layout
    with pytest.raises(ValueError, match="as many layers"):
        layout_from_plain({**layout_to_plain(layout), "sizes": [1, 2]})
