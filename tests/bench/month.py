"""`make simulate-month`: a lab's month on the rules of capacity, beside plain first come first served.

MONTH_SEED, MONTH_DAYS and MONTH_NODES change it.
"""

import os
import time

from tests.support.month import Lab, Month, Report


def main() -> None:
    """Play both and print the table."""
    lab = Lab(
        seed=int(os.environ.get("MONTH_SEED", "1")),
        days=int(os.environ.get("MONTH_DAYS", "30")),
        nodes=int(os.environ.get("MONTH_NODES", "64")),
    )
    print(f"{lab.days} days, {lab.users} users, {lab.nodes} nodes of 8 GPUs, seed {lab.seed}")
    print(f"{'':<24} {'backfill':>12} {'plain FIFO':>12}")
    began = time.monotonic()
    ours, plain = Month(lab).scenario_(), Month(lab, backfill=False).scenario_()
    rows = {
        "jobs started": lambda report: f"{len(report.waits)}",
        "utilisation": lambda report: f"{report.utilisation:.1%}",
        "mean wait, hours": lambda report: f"{report.mean_wait:.2f}",
        "p95 wait, hours": lambda report: f"{report.wait_quantile(0.95):.2f}",
        "mean wait of 8 GPUs": lambda report: f"{sum(report.big_waits) / len(report.big_waits):.2f}",
        "backfilled": lambda report: f"{report.backfilled}",
        "told a p90": lambda report: f"{len(report.in_time) or '-'}",
        "started before it": _in_time,
    }
    for name, cell in rows.items():
        print(f"{name:<24} {cell(ours):>12} {cell(plain):>12}")
    print(f"played in {time.monotonic() - began:.0f} s")


def _in_time(report: Report) -> str:
    return f"{report.share_in_time:.1%}" if report.in_time else "-"


if __name__ == "__main__":
    main()
