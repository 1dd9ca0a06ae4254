"""Couplings of a whole: what one of its parts gives to another enters `u` before any of its methods reads it."""

import dataclasses
import functools

from hybridtwin.fields import CouplingField

# Method -> the place of x among its arguments; u is the next.
READS = {"rates": 1, "diffusion": 1, "outputs": 0, "conserved": 0, "switches": 0, "portion": 1}


def couplings_of(struct) -> list[str]:
    """Names of the couplings of an Input."""
    return [name for name, declared in getattr(struct, "_declared", {}).items() if isinstance(declared, CouplingField)]


def given(method, at: int):
    """A method of a whole that is given `u` with its couplings in it."""

    @functools.wraps(method)
    def told(self, *args):
        return method(self, *args[: at + 1], with_couplings(self, args[at], args[at + 1]), *args[at + 2 :])

    return told


def with_couplings(system, x, u):
    """`u` with the couplings of a whole in it; one that whoever holds the whole supplies itself stays as it is."""
    struct = type(system).Input
    names = couplings_of(struct)
    supplied = {name: here for name in names if (here := getattr(u, name, None)) is not None}
    if len(supplied) == len(names):
        return u
    plain = {name: getattr(u, name) for name in (f.name for f in dataclasses.fields(struct)) if name not in names}
    made = system.couplings(x, struct(**plain, **dict.fromkeys(names)))
    return struct(**plain, **{**made, **supplied})
