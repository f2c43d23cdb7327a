from __future__ import annotations

import gc

import pytest

from sparsight.numerics.collecting import uncollected


def broken() -> None:
    with uncollected():
        assert not gc.isenabled()
        raise KeyError


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_is_as_it_was_afterwards(before):
    was = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with pytest.raises(KeyError):
            broken()
        assert gc.isenabled() is before
    finally:
        (gc.enable if was else gc.disable)()
