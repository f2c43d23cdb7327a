"""A run in two or three sentences."""

from __future__ import annotations

from collections.abc import Sequence

from sparsight.numerics.format import accuracy, apart, compression, percent, plural
from sparsight.numerics.intervals import difference
from sparsight.records.record import Evaluation, LevelRecord, RunRecord
from sparsight.report.run_view import Story, is_finite, judged, name, story


def summary(run: RunRecord, levels: Sequence[LevelRecord], evaluation: Evaluation | None) -> str:
    """Two or three plain sentences: what is left of the network, at what accuracy, relative to dense.

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
        return f"{what} at {metric.text(mine, 1)} validation {metric.name}."
    if not metric.share:
        against_dense = f"{metric.difference(mine, dense)} relative to dense ({metric.text(dense)})"
        return f"{what} at {metric.text(mine)} validation {metric.name}, {against_dense}."
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
    return apart(mine, dense, f"dense ({accuracy(dense, digits)})", digits)


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
    against = [f"{metric.text(dense, 1)} dense"] if dense is not None and subject is not s.dense else []
    if control is not None and s.control is not None:
        whole = f"the dense control ({plural(s.control.epochs, 'epoch')})"
        if mine is None:
            return f"{whole[0].upper()}{whole[1:]} reaches {metric.text(control, 1)} validation {metric.name}."
        against.append(f"{metric.text(control, 1)} for {whole}")
    return f"{split} {metric.name}: {metric.text(mine, 1)}{' against ' if against else ''}{' and '.join(against)}."


def _status(s: Story) -> str:
    where = f" after {name(s.levels[-1])}" if s.levels else ""
    return {
        "finished": "",
        "running": "The run has not ended.",
        "interrupted": f"The run was interrupted{where}.",
        "failed": f"The run failed{where}.",
    }[s.run.status]
