"""Every example runs, prints what its title promises, and stays short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
SAYS = {
    "plain_loop": ["[critical] vanishing_depth in 0, 2", "try first:", "1. Replace saturating activations"],
    "fabric": ["optimizer (AdamW): 200 steps", "Verdict: healthy, by 14 rules."],
    "gan": ["g (Adam): 300 steps, 4 parameters", "d (Adam): 300 steps, 4 parameters", "Verdict: healthy, by 14 rules."],
    "amp_scaler": ["fp16 overflows, skipped by the loss scaler: ", "Verdict: healthy, by 14 rules."],
    "lightning_trainer": ["optimizer (AdamW): 285 steps", "Verdict: healthy, by 14 rules.", "largest norm: "],
    "lightning_cli": ["optimizer (AdamW): 200 steps", "Verdict: healthy, by 2 rules."],
    "lightning_manual": [
        "generator (Adam): 300 steps, 4 parameters",
        "critic (Adam): 300 steps, 4 parameters",
        "['gradguard/critic/grad_norm/total', 'gradguard/generator/grad_norm/total']",
    ],
    "lightning_resume": ["the record reaches step 200\n", "the record reaches step 500 and is finished"],
    "clipping": [
        "steps with NaN or Inf: 358",
        "loss on clean data: nan",
        "ZClip: 19 steps clipped",
        "steps skipped, since their gradients were not finite: 1",
        "loss on clean data: 0.0",
    ],
    "lightning_clipping": ["PerModule: 200 steps clipped", "Verdict: healthy, by 2 rules.", "down to at least: 0.0"],
    "gradient_check": [
        "7 gradients: 7 ok.\n7 gradients: 3 ok, 4 wrong. It arises in 3 (SwishLayer): gradient of input.",
        "0.weight  wrong ",
    ],
    "initialise": [
        "the forget gate begins half closed: forget_gate_",
        "weight_hh_l0[f]  condition number",
        "torch's default: ",
        "chrono_ and orthogonal_: 0.0",
    ],
    "many_to_one": ["unseen digits read right: 9"],
    "one_to_many": ["drawn digits that a classifier of real ones misreads: 0 of 100"],
    "through_time": [
        "plain RNN: ",
        "of 100 steps; found: vanishing_time\nLSTM, chrono_: 0.",
        "gradient back to 100 of 100 steps; found: nothing",
    ],
    "tagger": ["torch.LSTM: 9", "gradguard.LSTM: 9", "gradguard.LayerNormLSTM: 9"],
    "already_clips": ["clipped_upstream", "largest norm seen: 0.5", "largest norm seen: 5"],
}


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES} == set(SAYS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path, tmp_path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 40
    assert source.startswith('"""')
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True, cwd=tmp_path)
    for sentence in SAYS[path.stem]:
        assert sentence in done.stdout
