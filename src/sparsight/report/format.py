"""Numbers as a reader wants them, and a run in two or three sentences."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from sparsight.numerics.intervals import difference
from sparsight.records.record import Evaluation, LevelRecord, RunRecord
from sparsight.report.run_view import Story, is_finite, judged, name, story
from sparsight.train.metric import Metric

NONE = "–"
"""What stands where nothing was recorded."""


def percent(share: float | None) -> str:
    """A share in percent: one decimal, and below 1 % two significant digits.

    A half is rounded up: 6.25 % reads "6.3 %". Only 0 reads "0 %" and only 1 reads "100 %": what lies between never
    rounds to either.
    """
    if share is None:
        return NONE
    if not math.isfinite(share):
        return repr(share)
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    value = 100.0 * share
    if value > 99.9:
        missing = 100.0 - value
        return f"{value:.{_decimals(missing, 1)}f} %" if missing > 1e-6 else "> 99.99999 %"
    return f"{value + 1e-9:.1f} %" if value >= 1.0 else f"{value:.{_decimals(value, 2)}f} %"


def _decimals(value: float, significant: int) -> int:
    return min(max(significant - 1 - math.floor(math.log10(abs(value))), 0), 12) if value else significant


def accuracy(value: float | None, digits: int = 2) -> str:
    """An accuracy in percent with `digits` decimals."""
    if value is None:
        return NONE
    return f"{100.0 * value:.{digits}f} %" if math.isfinite(value) else repr(value)


def worth(metric: Metric, value: float | None, digits: int = 2) -> str:
    """A value of a metric: of a share in percent with `digits` decimals, of another four significant digits."""
    if metric.share or value is None:
        return accuracy(value, digits)
    return f"{value:.4g}" if math.isfinite(value) else repr(value)


def compression(kept: int, total: int) -> str:
    """total / kept, as ×; "∞" where no weight is left."""
    if not kept:
        return "∞"
    ratio = total / kept
    return f"{ratio:.1f}×" if ratio < 100 else f"{ratio:,.0f}×"


def bytes_of(count: float) -> str:
    """A size: "812 bytes", "12.4 kB", "12.4 MB", "1.2 GB"; in powers of 1,000."""
    if count < 1000:
        return f"{count:,.0f} bytes"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:,.1f} GB"


def index(value: float | None, digits: int = 4) -> str:
    """A PQ index."""
    return NONE if value is None else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    """A number of things; at most one decimal, and only where it is not whole."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return repr(value)
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def duration(value: float) -> str:
    """Seconds, as "0.80 s", "2 min 05 s" or "3 h 04 min"."""
    if not math.isfinite(value):
        return repr(value)
    if 0.095 <= value < 9.995:
        return f"{value:.2f} s"
    if value < 59.95:
        return f"{value:.1f} s" if value >= 0.095 else f"{1000 * value:.1f} ms" if value else "0 s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def unbroken(sentence: str) -> str:
    """The same with no line break between a number and its unit."""
    return re.sub(r"(?<=\d) (?=(%|ms|s|min|h|weights|epochs?|points)\b|%)", "\u00a0", sentence)


def plural(number: float, noun: str) -> str:
    """ "1 epoch", "3 epochs"."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def summary(run: RunRecord, levels: Sequence[LevelRecord], evaluation: Evaluation | None) -> str:
    """Two or three plain sentences: what is left of the network, at what accuracy, beside dense.

    Speaks of the chosen level, or else of the last one and says so. Differences are in percentage points.
    Digits are raised from one to two where rounded accuracies would not differ by the rounded difference.
    """
    return told(story(run, levels, (), evaluation))


def told(s: Story) -> str:
    """`summary` of records that are sorted already."""
    if not s.levels:
        return " ".join(filter(None, ("No level has been trained yet.", _status(s))))
    subject = s.chosen or s.levels[-1]
    intro = "" if s.chosen else f"No level has been chosen; {name(subject)} is the last. "
    return intro + " ".join(filter(None, (_kept(s, subject), _doubt(s, subject), _tested(s, subject), _status(s))))


def _kept(s: Story, subject: LevelRecord) -> str:
    head = name(subject).capitalize()
    if subject is s.dense:
        what = f"{head} is the dense network: it keeps all {subject.total:,} weights"
    else:
        times = f" ({compression(subject.kept, subject.total)})" if subject.kept else ""
        what = f"{head} keeps {percent(subject.density)} of {subject.total:,} weights{times}"
    mine, dense, metric = subject.value, s.dense.value if s.dense else None, s.metric
    if mine is None or not is_finite(mine):
        return f"{what}; its validation {metric.name} is {'not known' if mine is None else 'not a number'}."
    if subject is s.dense or dense is None or not is_finite(dense):
        return f"{what} at {worth(metric, mine, 1)} validation {metric.name}."
    if not metric.share:
        beside_dense = f"{metric.difference(mine, dense)} beside dense ({worth(metric, dense)})"
        return f"{what} at {worth(metric, mine)} validation {metric.name}, {beside_dense}."
    digits = _digits(mine, dense)
    return f"{what} at {accuracy(mine, digits)} validation {metric.name}, {beside(mine, dense, digits)}."


def _doubt(s: Story, subject: LevelRecord) -> str:
    """Between which bounds the difference to dense lies, as far as the validation split tells."""
    mine, dense = judged(subject), judged(s.dense) if s.dense else None
    if subject is s.dense or mine is None or dense is None:
        return ""
    low, high = (100 * x for x in difference(mine[0], dense[0], min(mine[1], dense[1])))
    return f"On {mine[1]:,} validation samples the difference lies between {low:+.1f} and {high:+.1f} points (95 %)."


def beside(mine: float, dense: float, digits: int) -> str:
    """ "0.2 points below dense (88.3 %)"."""
    gap = round(100.0 * (mine - dense), digits)
    reference = f"dense ({accuracy(dense, digits)})"
    if gap == 0:
        return f"as {reference}"
    return f"{abs(gap):.{digits}f} points {'above' if gap > 0 else 'below'} {reference}"


def _digits(mine: float, dense: float) -> int:
    shown = round(100.0 * mine, 1) - round(100.0 * dense, 1)
    return 1 if abs(shown - round(100.0 * (mine - dense), 1)) < 0.05 else 2


def _tested(s: Story, subject: LevelRecord) -> str:
    mine, dense, control = (s.test_value(x) for x in (subject, s.dense, s.control))
    split = "Test"
    if mine is None:
        if s.control is None or s.control.value is None:
            return ""
        split, mine, dense, control = "Validation", None, None, s.control.value
    metric = s.metric
    against = [f"{worth(metric, dense, 1)} dense"] if dense is not None and subject is not s.dense else []
    if control is not None and s.control is not None:
        whole = f"the dense network trained for the whole run's {plural(s.control.epochs, 'epoch')}"
        if mine is None:
            return f"{whole[0].upper()}{whole[1:]} reaches {worth(metric, control, 1)} validation {metric.name}."
        against.append(f"{worth(metric, control, 1)} for {whole}")
    return f"{split} {metric.name}: {worth(metric, mine, 1)}{' against ' if against else ''}{' and '.join(against)}."


def _status(s: Story) -> str:
    where = f" after {name(s.levels[-1])}" if s.levels else ""
    return {
        "finished": "",
        "running": "The run has not ended.",
        "interrupted": f"The run was interrupted{where}.",
        "failed": f"The run failed{where}.",
    }[s.run.status]
