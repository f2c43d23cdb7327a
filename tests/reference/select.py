"""Selection, slowly: one sorted list of (score, place of the tensor, index), as the words say it."""

from __future__ import annotations


def flat(tensor):
    """Entries in logical row-major order, as Python numbers (exact for every dtype)."""
    return tensor.reshape(-1).tolist()


def prune(scores, masks, counts, scope="global", min_keep=0):
    """Flat lists of kept entries by name, and the names where the floor changed the selection (global scope)."""
    kept = {name: flat(mask) for name, mask in masks.items()}
    ranked = {}
    for place, (name, score) in enumerate(scores.items()):
        values = flat(score)
        ranked[name] = sorted((values[i], place, i) for i, alive in enumerate(kept[name]) if alive)

    if scope == "global":
        return _prune_global(ranked, kept, counts, min_keep)
    for name, entries in ranked.items():
        if scope == "layer":
            _drop(kept[name], entries[: counts[name]])
            continue
        rows = scores[name].shape[0] if scores[name].dim() else 1
        width = scores[name].numel() // max(rows, 1)
        of_row = [[] for _ in range(rows)]
        for entry in entries:
            of_row[entry[2] // width].append(entry)
        for row, count in enumerate(flat(counts[name])):
            _drop(kept[name], of_row[row][:count])
    return kept, ()


def _prune_global(ranked, kept, count, min_keep):
    protected, free = [], []
    for entries in ranked.values():
        cut = len(entries) - min(min_keep, len(entries))
        free += entries[:cut]
        protected += entries[cut:]
    gone = sorted(free)[:count]
    names = list(ranked)
    for _, place, i in gone:
        kept[names[place]][i] = False
    spared = {place for value, place, i in protected if gone and (value, place, i) < gone[-1]}
    return kept, tuple(names[place] for place in sorted(spared))


def _drop(kept, entries):
    for _, _, i in entries:
        kept[i] = False
