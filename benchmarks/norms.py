"""One norm of one tensor: how far off, and how fast, against torch's own full reduction in float32."""

from __future__ import annotations

import torch

from benchmarks.timing import interval, machine, median_of_calls, microseconds, ratio, rounds, table
from gradguard.functional import norms

SIZES = (1_000, 10_000, 100_000, 1_000_000, 30_000_000)


def main() -> None:
    print(f"# Norms\n\n{machine()}\n")
    rows = []
    for numel in SIZES:
        for kind, tensor in (("normal", torch.randn(numel)), ("all 0.1", torch.full((numel,), 0.1))):
            exact = torch.linalg.vector_norm(tensor, dtype=torch.float64).item()
            off = [abs(norm.item() / exact - 1) for norm in (torch._foreach_norm([tensor])[0], norms([tensor])[0])]
            seconds = rounds(
                {
                    "torch": lambda tensor=tensor: median_of_calls(lambda: torch._foreach_norm([tensor]), 5),
                    "ours": lambda tensor=tensor: median_of_calls(lambda: norms([tensor]), 5),
                },
                20,
            )
            rows.append(
                [
                    f"{numel:,} {kind}",
                    *(f"{error:.1e}" for error in off),
                    *(microseconds(seconds[name]) for name in ("torch", "ours")),
                    interval(ratio(seconds["ours"], seconds["torch"])),
                ]
            )
    print(
        table(
            ["entries", "_foreach_norm off by", "norms off by", "_foreach_norm, us", "norms, us", "ratio [95 %]"], rows
        )
    )


if __name__ == "__main__":
    main()
