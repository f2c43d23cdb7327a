"""A run in sentences: its result, and what to know before trusting it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from sparsight.numerics import format as words
from sparsight.numerics.intervals import difference, wilson
from sparsight.records.record import Evaluation, LevelRecord, RunRecord
from sparsight.report.run_view import Story, is_finite, judged, name, story
from sparsight.train.metric import ACCURACY


def summary(run: RunRecord, levels: Sequence[LevelRecord], evaluation: Evaluation | None) -> str:
    """Two or three plain sentences: what is left of the network, at what accuracy, relative to dense.

    Describes the chosen level, or the last one if none is chosen, and says which. Differences are in percentage points.
    Two digits replace one if rounded accuracies would not differ by the rounded difference.
    """
    return told(story(run, levels, (), evaluation))


def told(s: Story) -> str:
    """`summary` of records that are already sorted."""
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
        times = f" ({words.compression(subject.kept, subject.total)})" if subject.kept else ""
        what = f"{head} keeps {words.percent(subject.density)} of {subject.total:,} weights{times}"
    mine, dense, metric = subject.value, s.dense.value if s.dense else None, s.metric
    if mine is None or not is_finite(mine):
        return f"{what}; its validation {metric.name} is {'not known' if mine is None else 'not a number'}."
    if subject is s.dense or dense is None or not is_finite(dense):
        return f"{what} at {metric.text(mine, 1)} validation {metric.name}."
    shown = round(100.0 * mine, 1) - round(100.0 * dense, 1)
    digits = 1 if abs(shown - round(100.0 * (mine - dense), 1)) < 0.05 else 2
    named = f"dense ({metric.text(dense, digits)})"
    gap = f"{metric.difference(mine, dense)} relative to {named}"
    against = words.apart(mine, dense, named, digits) if metric.share else gap
    return f"{what} at {metric.text(mine, digits)} validation {metric.name}, {against}."


def _doubt(s: Story, subject: LevelRecord) -> str:
    """The interval of the difference from dense, as far as the validation split can tell."""
    mine, dense = judged(subject), judged(s.dense) if s.dense else None
    if subject is s.dense or mine is None or dense is None:
        return ""
    low, high = (100 * x for x in difference(mine[0], dense[0], min(mine[1], dense[1])))
    return f"On {mine[1]:,} validation samples the difference lies between {low:+.1f} and {high:+.1f} points (95 %)."


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
        whole = f"the dense control ({words.plural(s.control.epochs, 'epoch')})"
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


FEW_STEPS = 300
"""If level 0 took fewer steps, a better control means that the dense network was trained too little."""


def findings(s: Story) -> list[str]:
    """Sentences without a full stop: chance, training, noise, missing weights, cut-off weights, floors, losses."""
    return [*_dense(s), *_noise(s), *_lost(s), *_floors(s), *_losses(s)]


# -- reliability of the accuracies -------------------------------------------------------------------------------


def _dense(s: Story) -> Iterator[str]:
    dense = s.dense or s.control
    if s.levels and dense is None:
        yield "There is nothing dense to compare with: the run has neither an unpruned level nor a dense control"
    chance = s.run.most_frequent or _one_of(s.run.data)
    for x in filter(None, (dense, s.chosen)):
        at = judged(x)
        if at and chance and s.metric == ACCURACY and wilson(*at)[0] <= chance:
            whose = "The dense network" if x is dense else f"{name(x).capitalize()}, the chosen one,"
            yield (
                f"{whose} is at chance: {words.accuracy(at[0])} validation accuracy on {at[1]:,} samples is not above "
                f"guessing, which gives {words.accuracy(chance)}"
            )
            break
    if s.dense is None or s.control is None or not 0 < s.dense.steps < FEW_STEPS:
        return
    mine, other = judged(s.dense), judged(s.control)
    if mine and other and difference(other[0], mine[0], mine[1])[0] > 0:
        yield (
            f"The dense network is undertrained: validation {s.metric.name} {words.accuracy(mine[0])} after the "
            f"{words.plural(s.dense.steps, 'step')} of level 0, {words.accuracy(other[0])} after the "
            f"{s.control.steps:,} of the control; more epochs a level, or smaller batches, make the comparison fair"
        )


def _one_of(data: Mapping[str, Any]) -> float | None:
    """The accuracy of guessing a class; None if the number of classes is not recorded."""
    facts = data.get("facts")
    classes = facts.get("classes") if isinstance(facts, Mapping) else None
    return 1 / classes if isinstance(classes, int) and classes > 0 else None


def _noise(s: Story) -> Iterator[str]:
    within, at = chosen_within(s.run.description.get("choose")), judged(s.dense) if s.dense else None
    if not within or not at or not s.metric.share:
        return
    low, high = difference(at[0], at[0], at[1])
    if 50 * (high - low) > within:
        yield (
            f"The validation split is small for a choice within {words.margin(within, False)}: on {at[1]:,} "
            f"samples, differences of less than about {50 * (high - low):.1f} points are noise (95 %, for independent "
            "samples, which is an upper bound)"
        )


def chosen_within(choose: Any) -> float | None:
    """The margin for choosing the level, in points; None without one, or if it was relative."""
    known = isinstance(choose, Mapping) and choose.get("type") == "SparsestWithin" and not choose.get("relative")
    return choose["points"] if known and isinstance(choose.get("points"), (int, float)) else None


# -- effects of the masks ----------------------------------------------------------------------------------------


def _lost(s: Story) -> Iterator[str]:
    """Layers, outputs and weights that the masks leave empty or unused."""
    pruned = [x for x in s.levels if x.kept < x.total]
    for layers, numbers in _grouped(pruned, lambda x: x.collapsed).items():
        yield f"{spans(numbers)}: no weight is left in {listed(layers)}"
    dead = {x.level: of for x in pruned if (of := _dead_outputs(x))}
    if dead:
        have = "output has" if max(dead.values()) == 1 else "outputs have"
        last = listed([pruned[-1].layers[-1].name])
        yield f"{spans(list(dead))}: {_range(dead.values())} {have} no weight left in the last layer, {last}"
    cut = [x.level for x in pruned if x.collapse and x.collapse.disconnected]
    if cut:
        yield f"{spans(cut)}: no path is left from the input to the output"
    idle = {x.level: sum((x.collapse.cut_off or {}).values()) for x in pruned if x.collapse and x.level not in cut}
    idle = {level: count for level, count in idle.items() if count}
    if idle:
        lie = "kept weight lies" if max(idle.values()) == 1 else "kept weights lie"
        yield f"{spans(list(idle))}: {_range(idle.values())} {lie} on no path from the input to the output"
    for layers, numbers in _grouped(pruned, lambda x: x.collapse.nearly_empty if x.collapse else ()).items():
        yield f"{spans(numbers)}: hardly a weight is left in {listed(layers)}"


def _dead_outputs(x: LevelRecord) -> int:
    """Outputs of the last layer without a weight, such as a class that can no longer be told from others."""
    last = x.layers[-1] if x.layers else None
    return x.collapse.dead_outputs.get(last.name, 0) if x.collapse and last and last.kept else 0


def _floors(s: Story) -> Iterator[str]:
    held = [x for x in s.levels if x.floors]
    if held:
        where = list(dict.fromkeys(floor for x in held for floor in x.floors))
        yield f"{spans([x.level for x in held])}: min_keep changed what was removed in {listed(where)}"


def _losses(s: Story) -> Iterator[str]:
    wrong = [
        x
        for x in s.records
        if any(v is not None and not is_finite(v) for o in x.observations for v in (o.train_loss, o.validation_loss))
    ]
    numbers = [x.level for x in wrong if x is not s.control]
    if numbers:
        yield f"{spans(numbers)}: the loss was not a finite number"
    if s.control in wrong:
        yield "Dense control: the loss was not a finite number"


# -- words -------------------------------------------------------------------------------------------------------


def _grouped(
    levels: Sequence[LevelRecord], what: Callable[[LevelRecord], Sequence[str]]
) -> dict[tuple[str, ...], list[int]]:
    """Names grouped by the levels that they apply to: ("a", "b") -> [4, 5, 6]."""
    by_name: dict[str, list[int]] = {}
    for x in levels:
        for each in what(x):
            by_name.setdefault(each, []).append(x.level)
    found: dict[tuple[int, ...], tuple[str, ...]] = {}
    for each, numbers in by_name.items():
        found[tuple(numbers)] = (*found.get(tuple(numbers), ()), each)
    return {names: list(numbers) for numbers, names in found.items()}


def _range(counts: Collection[int]) -> str:
    few, many = min(counts), max(counts)
    return f"{few:,}" if few == many else f"{few:,} to {many:,}"


def spans(numbers: Sequence[int]) -> str:
    """ "Level 4", "Levels 4 to 10", "Levels 2, 5 and 7 to 9"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    told = [f"{run[0]} to {run[-1]}" if len(run) > 2 else " and ".join(map(str, run)) for run in runs]
    if len(numbers) == 1:
        return f"Level {told[0]}"
    return f"Levels {told[0]}" if len(told) == 1 else f"Levels {', '.join(told[:-1])} and {told[-1]}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first names, in quotes, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(f"'{x}'" for x in names[:most]) + more
