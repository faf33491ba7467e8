"""One way to compile the numeric kernels."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def kernel(function: _Function) -> _Function:
    """Compile `function` with numba: cached on disk, without the GIL, IEEE arithmetic as written.

    Never `fastmath`, never `parallel`: a kernel's result must not depend on how a compiler
    regroups sums or on how many threads there are. Divisions by zero follow IEEE rules.
    """
    return cast(_Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
