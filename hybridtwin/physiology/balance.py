"""What comes and goes, counted: the amounts that a system declares conserved, followed through a day.

The account of a law: what was there, what was given, what came and went by itself, and what is there in the end. A dose that
reaches no account, a fraction counted twice or a flow that leads nowhere is what is `missing`.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from hybridtwin.errors import DeclarationError
from hybridtwin.records import Person
from hybridtwin.simulate.trajectory import Trajectory
from hybridtwin.simulate.verb import simulate
from hybridtwin.system import State, System, output, state
from hybridtwin.units import bracketed


@dataclasses.dataclass(frozen=True)
class Account:
    """One law of conservation over a day. `gained`: by itself, what left is negative; `missing`: what is not accounted for."""

    unit: str
    begin: float
    given: float
    gained: float
    end: float

    @property
    def missing(self) -> float:
        return self.end - self.begin - self.given - self.gained

    @property
    def holds(self) -> bool:
        """Is all of it accounted for, to a millionth of the largest entry?"""
        return abs(self.missing) <= 1e-6 * max(abs(self.begin), abs(self.given), abs(self.gained), abs(self.end))


@dataclasses.dataclass(frozen=True)
class Balance:
    """The accounts of a body over a day, by law; `course`: the amounts over time."""

    name: str
    accounts: dict[str, Account]
    course: Trajectory

    def __getitem__(self, law: str) -> Account:
        return self.accounts[law]

    def rows(self) -> list[tuple[str, ...]]:
        """A law a row: name with unit, at the first row, given, gained, at the end, missing."""
        shown = lambda a: [f"{v:.5g}" for v in (a.begin, a.given, a.gained, a.end)] + [f"{a.missing:.1g}"]
        return [(f"{law} {bracketed(a.unit)}", *shown(a)) for law, a in self.accounts.items()]

    def to_dataframe(self):
        """One row a law."""
        import pandas as pd

        return pd.DataFrame([{"law": law, **dataclasses.asdict(a), "missing": a.missing} for law, a in self.accounts.items()])

    def plot(self):
        """The amounts over time."""
        return self.course.plot(*self.accounts)

    def __repr__(self):
        rows = [HEAD, *self.rows()]
        wide = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
        told = ["  ".join(c.ljust(w) for c, w in zip(row, wide, strict=True)).rstrip() for row in rows]
        return "\n".join([f"{self.name}: what is conserved", *told])


HEAD = ("what", "first", "given", "gained", "last", "missing")


def balance(system: System, person: Person, *, tol: float = 1e-6) -> Balance:
    """What a body (a number in every leaf) conserves, through the day of a record.

    **Arguments:** `person`: the record; `tol`: of the solver, as in `simulate`.

    **Returns:** a `Balance`: for every law of `system.conserved` what was there, given, gained and is there in the end.

    **Raises:** DeclarationError where it declares no law, and what `simulate` raises.
    """
    spec, laws = system.spec, tuple(system.spec.conserved.items())
    if not laws:
        said = type(system).unconserved
        raise DeclarationError(f"{spec.name} conserves nothing{f': {said}' if said else ''}. Give it def conserved(self, x, u)")
    course = simulate(_beside(type(system), laws)(body=system), person, tol=tol)
    begin, given = _begun(system, person)
    accounts = {}
    for i, (law, unit) in enumerate(laws):
        gained, end = (float(course[f"{what}{i}"][0, -1]) for what in ("gained", "amount"))
        accounts[law] = Account(unit, begin[law], given[law], gained, end)
    values = {law: course[f"amount{i}"] for i, (law, _) in enumerate(laws)}  # a state may have the name of a law, in its own unit
    shown = dataclasses.replace(course, values=values, units=dict(laws))
    return Balance(spec.name, accounts, shown)


def _begun(system, person) -> tuple[dict[str, float], dict[str, float]]:
    """By law: what is there before the first row, and what doses add: all that they bring, heaped up on that."""
    spec, none = system.spec, dict.fromkeys(system.spec.conserved, 0.0)
    with jax.enable_x64(True):
        bound = person.bind(spec)
        u = spec.input({n: float(bound.inputs[n](bound.start)) for n in (*spec.covariates, *spec.signals)})
        amounts = lambda x: {law: float(pair[0]) for law, pair in system.conserved(x, u).items()}
        first = spec.flatten(system.initial(u))
        begin = amounts(spec.state(first))
    if not spec.doses:
        return begin, none
    heaps = simulate(_heaping(type(system))(body=system), person, at=[person.clock.stop])
    with jax.enable_x64(True):
        heaped = amounts(spec.state({path: first[path] + np.float64(heaps[path][0, -1]) for path in spec.states}))
    return begin, {law: heaped[law] - begin[law] for law in none}


def _alike(cls, name: str, parts: dict) -> type[System]:
    """A system that holds one of this class, with its time, inputs and routes, and the rest of `parts`."""
    routes = {"dosing": lambda self, u: self.body.dosing(u)} if "dosing" in vars(cls) else {}
    if "couplings" in vars(cls):
        routes["couplings"] = lambda self, x, u: self.body.couplings(_own(cls, x), u)
    about = {key: vars(cls)[key] for key in ("time", "step", "grid", "restless") if key in vars(cls)}
    kept = {"__module__": __name__, "__qualname__": name, "__annotations__": {"body": cls}, "Input": cls.Input}
    return type(cls)(name, (System,), {**kept, **about, **routes, **parts})


def _state(struct, more: dict) -> Any:
    """A State with the declared states and nested structs of another, and more."""
    nested = {k: v for k, v in struct._declared.items() if isinstance(v, type)}
    kept = {k: v for k, v in struct._declared.items() if k not in nested}
    make: Any = type(State)
    return make("State", (State,), {"__annotations__": nested, **kept, **more})


def _own(cls, x):
    """The State of a class, out of one that has more."""
    return cls.State(**{name: getattr(x, name) for name in cls.State._declared})


@functools.lru_cache
def _heaping(cls) -> type[System]:
    """Doses enter and nothing else happens."""

    def rates(self, t, x, u):
        return self.State(**{name: jax.tree.map(lambda v: 0.0 * v, part) for name, part in vars(x).items()})

    return _alike(cls, f"Given{cls.__name__}", {"State": _state(cls.State, {}), "rates": rates, "step": None})


@functools.lru_cache
def _beside(cls, laws) -> type[System]:
    """The same body with what each law gains as a state beside it, and each amount as an output."""
    sums = {f"gained{i}": state(unit, f"gained: {law}", positive=False) for i, (law, unit) in enumerate(laws)}
    held = _state(cls.State, sums)
    own = functools.partial(_own, cls)

    def rates(self, t, x, u):
        x = own(x)
        gains = self.body.conserved(x, u)
        return held(**vars(self.body.rates(t, x, u)), **{f"gained{i}": gains[law][1] for i, (law, _) in enumerate(laws)})

    def outputs(self, x, u):
        amounts = self.body.conserved(own(x), u)
        return {f"amount{i}": output(amounts[law][0], unit) for i, (law, unit) in enumerate(laws)}

    def initial(self, u):
        return held(**vars(self.body.initial(u)), **dict.fromkeys(sums, 0.0))

    def switches(self, x, u):
        return self.body.switches(own(x), u)

    def portion(self, dose, x, u, amount, first):
        changed = self.body.portion(dose, own(x), u, amount, first)
        return held(**vars(changed), **{name: getattr(x, name) for name in sums})

    parts = {"State": held, "rates": rates, "outputs": outputs, "initial": initial}
    more = {"switches": switches, "portion": portion}
    return _alike(cls, f"Balanced{cls.__name__}", {**parts, **{k: m for k, m in more.items() if k in vars(cls)}})
