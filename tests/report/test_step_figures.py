"""Figures of one step show the numbers of the profile, and of the gates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from torch import Tensor, nn

from gradguard.detect import GateStatistics
from gradguard.probe import gates, through_time
from gradguard.report import plot_gates, plot_profile
from tests.report.samples import fading, png, profile_of


def test_a_profile_is_its_curve_its_line_and_its_horizon() -> None:
    sizes = 5.0 * fading(60, 0.8) * (1 + 0.3 * torch.rand(60, dtype=torch.float64))
    sizes[50:] = 1e-40  # underflow, which is in no line
    sequences = torch.linspace(9, 1, 60, dtype=torch.float64).round()
    profile = profile_of(sizes, sequences=sequences)
    ax = plot_profile(profile)
    curve, fitted, mark = (next(o for o in ax.lines if o.get_gid() == gid) for gid in ("memory", "fitted", "horizon"))
    assert curve.get_xdata().tolist() == list(range(60))
    np.testing.assert_allclose(curve.get_ydata(), (sizes / sizes.max()).numpy(), rtol=1e-14)
    assert curve.get_label() == f"lstm.l0: 1 % left after {profile.horizon:.3g} of 60 steps"
    slope, start = np.polyfit(
        np.arange(50), np.log((sizes[:50] / sizes.max()).numpy()), 1, w=np.sqrt(sequences[:50].numpy())
    )
    np.testing.assert_allclose(fitted.get_ydata(), np.exp(start + slope * np.arange(60)), rtol=1e-8)
    assert fitted.get_label() == f"fitted: {math.exp(slope):.3g}-fold each step (r² {profile.decay.fit:.2f})"
    assert mark.get_xydata().tolist() == [[profile.horizon, 0.01]]
    at = np.interp(profile.horizon, np.arange(60), np.log(curve.get_ydata()))
    assert at == pytest.approx(math.log(0.01), abs=1e-9)
    assert [list(o.get_ydata()) for o in ax.lines if o.get_label() == "1 % of the largest"] == [[0.01, 0.01]]
    assert ax.get_yscale() == "log"
    assert ax.get_ylim() == (1e-8, 2)


def test_profiles_share_axes() -> None:
    ax = plot_profile(profile_of(fading(20, 0.5)), label="plain")
    assert plot_profile(profile_of(fading(200, 0.999)), ax=ax, label="chrono") is ax
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words == [
        "1 % of the largest",
        "plain: 1 % left after 6.64 of 20 steps",
        "fitted: 0.5-fold each step (r² 1.00)",
        "chrono: more than 1 % left over all 200 steps",
        "fitted: 0.999-fold each step (r² 1.00)",
    ]
    curves = [one for one in ax.lines if one.get_gid() == "memory"]
    assert len({to_rgba(one.get_color()) for one in curves}) == 2
    assert ax.get_xlim()[1] > 199
    assert len([one for one in ax.lines if one.get_gid() == "horizon"]) == 1


def test_a_profile_that_grows_or_is_nothing_is_said_in_words() -> None:
    def words(sizes: Tensor) -> str:
        ax = plot_profile(profile_of(sizes))
        png(ax)
        return next(one.get_label() for one in ax.lines if one.get_gid() == "memory")

    assert words(fading(21, 2.0)) == "lstm.l0: grows 1.05e+06-fold over 21 steps"
    assert words(torch.tensor([1.0, torch.inf])) == "lstm.l0: grows inf-fold over 2 steps"
    assert words(torch.zeros(5)) == "lstm.l0: no gradient"
    assert words(torch.tensor([1.0, 0.0, 0.0])) == "lstm.l0: 1 % left after 1 of 3 steps"
    assert words(torch.ones(6000)) == "lstm.l0: more than 1 % left over all 6000 steps"


def test_what_overflows_has_no_line() -> None:
    sizes = fading(20, 10.0)
    sizes[12:] = torch.inf
    assert not [one for one in plot_profile(profile_of(sizes)).lines if one.get_gid() == "fitted"]


def test_a_default_device_changes_nothing() -> None:
    profile, opened = profile_of(fading(20, 0.5)), gates(nn.LSTM(2, 3), torch.randn(5, 1, 2))["l0"]
    with torch.device("meta"):
        png(plot_profile(profile))
        png(plot_gates(opened))


def test_a_tuple_of_profiles_is_said() -> None:
    lstm, x = nn.LSTM(2, 4), torch.randn(20, 3, 2)
    profiles = through_time(lstm, x, lambda model, batch: model(batch)[0][-1].square().mean())
    assert plot_profile(profiles[0]).get_title() == "Gradient left, going back in time"
    with pytest.raises(TypeError, match=r"needs one Profile, got tuple\. Call it for each, with the same ax"):
        plot_profile(profiles)  # type: ignore[arg-type]


def test_gates_are_their_histograms() -> None:
    f = torch.zeros(20, dtype=torch.float64)
    f[-1], f[10] = 0.75, 0.25
    g = torch.full((20,), 0.05, dtype=torch.float64)
    one, none = torch.ones(2), torch.zeros(2)
    opened = (
        GateStatistics("f", one * 0.9, none, none, torch.tensor([0.5, 0.75]), f),
        GateStatistics("g", one * -0.5, one, torch.tensor([0.1, 0.2]), none, g),
    )
    ax = plot_gates(opened)
    of_g, of_f = (patch.get_data() for patch in ax.patches if type(patch).__name__ == "StepPatch")
    np.testing.assert_allclose((of_f.values - 1) / (of_f.values - 1).max() * 0.75, f, rtol=1e-12)
    np.testing.assert_allclose(of_g.values / of_g.values.max() * 0.05, g, rtol=1e-12)
    assert of_g.baseline == 0
    assert of_f.baseline == 1
    np.testing.assert_allclose(of_f.edges, np.arange(21) / 20, rtol=1e-6)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["g", "f"]
    assert [text.get_text() for text in ax.texts] == ["shut 15.0 %", "open 0.0 %", "shut 0.0 %", "open 62.5 %"]
    means = [one.get_xdata()[0] for one in ax.lines if one.get_xdata()[0] == one.get_xdata()[1]]
    assert means == pytest.approx([0.25, 0.9])  # -0.5 of a tanh is a quarter of its way
    assert "g: from -1 to 1" in ax.get_xlabel()


def test_gates_of_a_plain_network_are_between_minus_one_and_one() -> None:
    ax = plot_gates(gates(nn.RNN(2, 4), torch.randn(9, 3, 2))["l0"])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["-1", "-0.5", "0", "0.5", "1"]
    assert "from" not in ax.get_xlabel()
    png(ax)


def test_no_gates_are_said() -> None:
    with pytest.raises(ValueError, match="needs a gate or more, got none: a layer with ReLU has none"):
        plot_gates(())
    with pytest.raises(TypeError, match=r"needs the gates of one layer, such as profile.gates or gates\(...\)\['l0'\]"):
        plot_gates(gates(nn.LSTM(2, 3), torch.randn(5, 1, 2)))  # type: ignore[arg-type]
