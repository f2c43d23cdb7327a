"""How far can I go? One paragraph and one record."""

from sparsight.compare.verdict.verdict import verdict, verdicts

__all__ = ["verdict", "verdicts"]
