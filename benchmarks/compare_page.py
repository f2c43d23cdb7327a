"""The page of `sparsight compare` for many runs: seconds to make and to open it, and its size. Needs Chromium.

    python benchmarks/compare_page.py [--runs 1000] [--rounds 5] [--json benchmarks/results/compare_page.json]

The runs are in closed form (`tests/compare/synthetic.py`), of two levels each. Making is in processor time, from the
run folders to the file, with Vega's bundle in the cache. Opening is from the address to all charts drawn; beside the
seconds of the clock, in which other work counts, stand the processor seconds of the page's main thread. Bars: 20 s to
make, 1.5 s to open, 6 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    sys.path += [str(TESTS), str(TESTS / "compare")]
    from pages import tab
    from synthetic import write_runs

    from sparsight.compare.gather import gather
    from sparsight.compare.page import page
    from sparsight.report.pages import vega

    vega()
    with tempfile.TemporaryDirectory() as folder:
        runs, where = write_runs(Path(folder) / "runs", args.runs), Path(folder) / "compare.html"
        made, opened, busy = [], [], []
        for _ in range(args.rounds):
            start = time.process_time()
            where.write_text(page(gather(runs)), encoding="utf-8")
            made.append(time.process_time() - start)
        with tab(Path(folder)) as shown:
            shown.call("Performance.enable", timeDomain="threadTicks")
            for _ in range(args.rounds):
                start = time.perf_counter()
                shown.open(where)
                opened.append(time.perf_counter() - start)
                found = shown.call("Performance.getMetrics")["metrics"]  # which begin anew with the page
                busy.append(next(x["value"] for x in found if x["name"] == "TaskDuration"))
        row = {
            "runs": args.runs,
            "megabytes": round(where.stat().st_size / 1e6, 2),
            "processor seconds to make": round(statistics.median(made), 2),
            "seconds to open": [round(min(opened), 2), round(statistics.median(opened), 2)],
            "processor seconds of the page's main thread": round(statistics.median(busy), 2),
        }
    print("  ".join(f"{key}: {value}" for key, value in row.items()))
    about = {"machine": platform.machine(), "rounds": args.rounds, "load": round(os.getloadavg()[0], 1)}
    if args.json:
        args.json.write_text(json.dumps({"about": about, "seconds to open": "least and median", "row": row}) + "\n")


if __name__ == "__main__":
    main()
