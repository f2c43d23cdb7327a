"""Draw the README's picture from a run folder: accuracy and PQ index against density, without a browser.

    python docs/pictures/make_picture.py runs/sap-001 docs/pictures/sap-fashion-mnist.png

It is the first chart of the run's report.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import vl_convert

from sparsight.records.folder import RunFolder
from sparsight.report.pages import Chart, drawn
from sparsight.report.run_charts import frontier
from sparsight.report.run_view import story


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    with RunFolder.open(args.run) as folder:
        found = frontier(story(folder.record, folder.levels(), folder.times(), folder.evaluation()))
    (chart,) = (part for part in found.parts if isinstance(part, Chart))
    args.target.write_bytes(vl_convert.svg_to_png(drawn(chart.spec, 740), scale=2))


if __name__ == "__main__":
    main()
