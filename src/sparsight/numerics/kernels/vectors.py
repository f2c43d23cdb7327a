"""Operations on single vectors: hand-written for LLVM, or lane by lane if that does not compile."""

from __future__ import annotations

import warnings
from typing import Any

from numba import cfunc, types
from numba.core.errors import NumbaError

from sparsight.numerics.kernels import vectors_llvm, vectors_plain
from sparsight.numerics.kernels.jit import cached


def _probe(out):
    vectors_llvm.scaled(out, out)
    vectors_llvm.transposed(out, 64, out, 64)
    vectors_llvm.strip_in(out, out, out)


def _chosen() -> Any:
    try:
        cached(cfunc, types.void(types.int64))(_probe)
    except (NumbaError, RuntimeError, NotImplementedError) as error:
        warnings.warn(f"kernels do not compile here, their slower twins serve: {error}", RuntimeWarning, 2)
        return vectors_plain
    return vectors_llvm


vectors = _chosen()
