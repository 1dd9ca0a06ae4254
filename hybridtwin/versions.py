"""Which versions of what are installed, without importing any of it."""

import sys
from importlib.metadata import PackageNotFoundError, version

_TOLD = ("hybridtwin", "jax", "jaxlib", "numpyro", "diffrax", "equinox", "numpy", "arviz")


def versions(names=_TOLD) -> dict[str, str]:
    """Version of each package; "not installed" where there is none."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # hybridtwin itself may run from its source
            found[name] = getattr(sys.modules.get(name), "__version__", "not installed")
    return found
