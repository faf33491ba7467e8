"""One way to compile the numeric kernels."""

import importlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _load_numba_without_blas() -> None:
    """Load the part of numba that looks for scipy's BLAS while there seems to be none.

    No kernel calls BLAS. Loading scipy.linalg for it would add 0.4 s and 15 MB to every process
    that runs a kernel.
    """
    wanted_by_numba = "scipy.linalg.cython_blas"
    if wanted_by_numba in sys.modules:
        return
    sys.modules[wanted_by_numba] = cast(Any, None)
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        del sys.modules[wanted_by_numba]


_load_numba_without_blas()


def kernel(function: _Function) -> _Function:
    """Compile `function` with numba: cached on disk, without the GIL, IEEE arithmetic as written.

    Never `fastmath`, never `parallel`: a kernel's result must not depend on how a compiler
    regroups sums or on how many threads there are. Divisions by zero follow IEEE rules.
    """
    return cast(_Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
