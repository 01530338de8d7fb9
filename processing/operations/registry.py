"""Which operations are ours. An operation is one module and one line here.

Those of extensions are beside them in ``catalogue``. Every process knows all of them and few compute: an
operation names scipy and skimage as packages, whose parts load when they are first used.
"""

import importlib
from collections.abc import Mapping

from processing.operations.operation import Operation

_MODULES = (
    "smooth_mean",
    "gaussian",
    "median",
    "bilateral",
    "nlm",
    "sobel",
    "prewitt",
    "scharr",
    "directional",
    "laplacian",
    "log",
    "zero_crossing",
    "canny",
    "low_pass",
    "band_pass",
    "high_pass",
    "unsharp",
    "equalize",
    "clahe",
    "window",
    "resize",
    "add",
    "mean",
    "subtract",
    "mip",
    "minip",
    "mean_projection",
    "slab",
    "rotating_mip",
    "mpr",
)

PLACES = tuple(f"processing.operations.{module}:OPERATION" for module in _MODULES)
"""Where each is found; the sandboxed worker imports only what it needs."""

OPERATIONS: Mapping[str, Operation] = {
    one.name: one
    for one in (
        importlib.import_module(f"processing.operations.{module}").OPERATION for module in _MODULES
    )
}
