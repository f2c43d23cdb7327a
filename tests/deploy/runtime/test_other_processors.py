"""The kernels as they are compiled for a processor with AVX2 and without AVX-512, run on this one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from llvmlite import binding

SCRIPT = """
import torch
from networks import Detector, error, exactly, sparse_
from sparsight.deploy.runtime.program import compiled
from sparsight.deploy.runtime.stream import machine
from sparsight.deploy.runtime.trace import traced
from sparsight.numerics.kernels.jit import has
from sparsight.zoo import networks as zoo

torch.set_num_threads(1)
assert has("avx2") and not has("avx512f") and machine().vectors == 6
for model, shape in ((Detector(), (3, 24, 28)), (zoo.lenet5(), (1, 28, 28))):
    sparse_(model, 0.3)
    graph = traced(model, torch.randn(1, *shape))
    for images in (1, 18):
        x = torch.randn(images, *shape)
        for got, wanted in zip(compiled(graph, images)(x), exactly(model, x), strict=True):
            assert error(got, wanted) < 1e-5
print("the same")
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="another kind of processor")
def test_avx2(tmp_path):
    if not binding.get_host_cpu_features().get("avx2"):
        pytest.skip("this processor has no AVX2")
    root = Path(__file__).parents[3]
    where = {
        **os.environ, "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx,+sse4.2,+sse4.1,+ssse3,+sse3",
        "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root / "tests")]),
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=where, capture_output=True, text=True)
    assert done.stdout == "the same\n", done.stderr
