"""Options of the commands for runs and studies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from typing_extensions import Doc
from tyro import conf

from sparsight.cli.options import Device, File, Json, Precision, Runs, Switch, WhichLevels

Family = Literal[
    "accuracy", "classes", "agreement", "calibration", "corruptions", "potential", "structure", "size", "latency"
]
USUAL: tuple[Family, ...] = ("accuracy", "classes", "agreement", "calibration", "potential", "structure", "size")


@dataclass(frozen=True)
class ShowOptions:
    """Print the results of a run, finished or not; or the tensors of a packed file and their sizes."""

    run: Annotated[conf.Positional[Path], Doc("A run folder or a packed file.")]
    json: Json = False
    csv: Annotated[File, Doc("Write a row per level to this file; - is standard output.")] = None


@dataclass(frozen=True)
class ReportOptions:
    """Rewrite report.html of a run from its records, and print its path."""

    run: Annotated[conf.Positional[Path], Doc("The run folder, finished or not.")]
    open: Annotated[bool, Doc("Open the page in the browser.")] = False


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure the networks of finished runs on the test split, beyond accuracy.

    Results are kept in the run folder; running the command again reads them. Metrics come in families. Corruptions
    and latency take longer and are only measured if you name them.
    """

    runs: Runs
    metrics: Annotated[tuple[Family, ...], Doc("Families of metrics to measure.")] = USUAL
    level: Annotated[tuple[int, ...], conf.arg(metavar="N")] = ()
    """Levels to measure. Default: all with weights on disk."""
    corruptions: Annotated[tuple[str, ...], conf.arg(metavar="NAME")] = ()
    """Corruptions to apply, such as gaussian_blur. Default: all 14."""
    severities: Annotated[tuple[int, ...], conf.arg(metavar="N")] = (1, 2, 3, 4, 5)
    """Severities of corruptions, 1 to 5."""
    samples: Annotated[int, conf.arg(metavar="N"), Doc("Test images to corrupt: the same share of each class.")] = 2000
    model: Annotated[str | None, Doc("The run's network, if it is not from the zoo: package.module:attribute.")] = None
    data: Annotated[str | None, Doc("The run's data, if it is your own: package.module:attribute or a path.")] = None
    out: Annotated[File, conf.arg(aliases=("-o",))] = None
    """Write the rows to this .csv, .json or .parquet file; - is standard output, as CSV."""
    json: Annotated[Switch, Doc("Print one JSON document instead of the table.")] = False


@dataclass(frozen=True)
class CompareOptions:
    """Put the networks of runs side by side: a table, or a page with a scatter, a family tree and details.

    Everything is read from the records of the runs and from what `sparsight evaluate` stored; nothing is measured.
    """

    runs: Runs
    levels: Literal["auto", "all", "chosen"] = "auto"
    """Which networks of each run: all, or the chosen one and the dense one; auto is all of them up to 1,000
    networks."""
    out: Annotated[File, conf.arg(aliases=("-o",))] = None
    """Write the page to this .html file; - is standard output."""
    csv: Annotated[File, Doc("Write a row for each network to this file; - is standard output.")] = None
    parquet: Annotated[File, Doc("Write these rows to this .parquet file.")] = None
    json: Annotated[Switch, Doc("Print one JSON document instead of the table.")] = False


@dataclass(frozen=True)
class VerdictOptions:
    """Find the sparsest network within a margin of dense, and list the evidence for it and against it.

    Prints a paragraph per setting; runs that differ only in their seed count as one setting. Reads the run folders:
    nothing is trained or measured, and the test split is not used for the decision.
    """

    runs: Runs
    within: Annotated[float, conf.arg(metavar="POINTS")] = 0.5
    """Margin in percentage points; for a metric that is not a share, percent of the dense network's value."""
    confidence: Annotated[float, conf.arg(metavar="PERCENT"), Doc("Confidence of the bound, above 50.")] = 95.0
    json: Annotated[Switch, Doc("Print the records as one JSON document instead.")] = False


@dataclass(frozen=True)
class VerifyOptions:
    """Check every file of a run, finished or not, against its checksum and the run's records.

    Prints a line per damaged file, with what is wrong and what to do; the exit code is then 3.
    """

    path: Annotated[conf.Positional[Path], Doc("A run folder or a study folder.")]


STUDY = """\
Run many trials (recipes x arguments x seeds x models x data), each in its own process, then write tables.

FILE is YAML:

  model: lenet-300-100          # or a list; data likewise
  data: fashion-mnist
  seeds: 5                      # 0 to 4, or a list
  arguments: {control: false}   # for every recipe that has them
  budget: {epochs: 48}          # total epochs of every run
  densities: [0.1, 0.05]        # final densities, reached exactly
  methods:
    - recipe: sap
      label: SAP (1, 2)
      arguments: {p: 1.0, q: 2.0}
    - recipe: lottery
    - recipe: snip
      grid: {score_batches: [1, 4]}
      options: {optimizer: adam}   # of sparsight run

The file is checked before anything starts. A dense network that several trials share is trained once. Run the same
command again to resume: finished trials are skipped, unfinished ones continue where they stopped. A trial that fails
does not stop the others; the path of its log is printed.

Writes rows.csv, rows.json and rows.md (a row per trial and level), summary.csv and summary.md (mean, standard
deviation and half-width of the 95 % Student-t interval over seeds) and compare.html, next to study.json, trials/,
shared/ and logs/.

examples:
  sparsight study study.yaml --dry-run
  sparsight study study.yaml --out studies/first --workers 2

exit codes: 0 done, 1 a trial failed, 2 wrong use, 130 interrupted."""


@dataclass(frozen=True)
class StudyOptions:
    """The trials of a study file, and how to run them."""

    about: ClassVar[str] = STUDY

    file: Annotated[conf.Positional[Path], Doc("The study file, in YAML.")]
    out: Annotated[Path | None, Doc("The study folder. Default: runs/NAME, after the name of the file.")] = None
    dry_run: Switch = False
    """Print what would run, what is shared and about how long it would take; start nothing."""
    workers: Annotated[int, Doc("Trials to run at the same time, with --engine local.")] = 1
    engine: Literal["local", "ray"] = "local"
    """Run the trials on this machine, or on a cluster of Ray (sparsight[ray])."""
    address: Annotated[str | None, conf.arg(metavar="HOST:PORT")] = None
    """With --engine ray, the cluster's address; auto is a cluster on this machine. Default: start one here."""
    print_slurm: Switch = False
    """With --engine ray, print a Slurm job script that runs the study; start nothing."""
    threads: Annotated[int | None, Doc("CPU threads of each trial. Default: cores / workers; with Ray, 1.")] = None
    device: Device = "auto"
    precision: Precision = "no"
    keep: WhichLevels = "chosen"
