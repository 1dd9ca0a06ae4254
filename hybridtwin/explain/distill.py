"""A twin told in a few lines: a shallow tree or a short formula that answers as it does, with how well it does so.

The student sees named parameters and the total amount of each dose, in the units of the system, over the draws of the twin
and over worlds in which the doses are between a half and one and a half of what they are. Its fidelity is the R^2 on bodies
and worlds that it has not seen. It says what the twin says, no more: a student of a posterior knows nothing of other people.
"""

import dataclasses
from typing import Any

import numpy as np

from hybridtwin.errors import DeclarationError, SolveError
from hybridtwin.explain.players import reach, scaled_doses, settled
from hybridtwin.fit import unit_of
from hybridtwin.inference.readings import generator
from hybridtwin.keys import as_key
from hybridtwin.outcomes import Outcome, as_outcome
from hybridtwin.twin import simulate_worlds
from hybridtwin.units import plain
from hybridtwin.worlds import thinned

_WORLDS = 24  # worlds with other amounts
_RANGE = (0.5, 1.5)  # of the amounts, in them
_HELD = 0.3  # share of the bodies, and of the worlds, that fidelity is measured on


@dataclasses.dataclass(frozen=True)
class Tree:
    """A regression tree of at most `depth` questions on the way to an answer, each for at least `least` of the rows."""

    depth: int = 3
    least: float = 0.02


@dataclasses.dataclass(frozen=True)
class Formula:
    """A product of powers of at most `terms` quantities where all is positive, else a sum; whichever foretells better."""

    terms: int = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Student:
    """A student of a twin: `text` to read, `fidelity` (R^2 on what it has not seen), `predict(table)` to ask.

    `features`: what it sees, name -> unit; `used`: those that it uses; `rows` of the twin behind it.
    """

    outcome: Outcome
    kind: Tree | Formula
    features: dict[str, str]
    used: tuple[str, ...]
    fidelity: float
    rows: int
    text: str
    model: Any

    def predict(self, table) -> np.ndarray:
        """The outcome (n,) from a data frame with the columns `features`, in their units."""
        return self.model(np.stack([np.asarray(table[name], float) for name in self.features], axis=1))

    @property
    def table(self):
        """What it was asked to say, as a data frame of one row."""
        import pandas as pd

        return pd.DataFrame([{"outcome": self.outcome.label, "unit": self.outcome.unit, "student": repr(self.kind),
                              "uses": ", ".join(self.used), "fidelity": self.fidelity, "rows": self.rows}])  # fmt: skip

    def to_dataframe(self):
        """The same as `table`."""
        return self.table

    def __repr__(self):
        return self.text


def distill(
    twin,
    outcome: Outcome,
    *,
    into: Tree | Formula | None = None,
    inputs: bool = True,
    prior: bool = False,
    structure: int = 0,
    key,
) -> Student:
    """Distill a twin's answer to one question into a `Tree` or a `Formula` (default) of named quantities.

    **Arguments:** `inputs`: let the amounts of doses vary, too (each input by one factor from 0.5 to 1.5); `prior`: over the
    prior's bodies instead of the posterior's, which makes a student of the system rather than of the person; `structure`:
    which model of the twin; `key`: chooses the worlds and what is held back.

    **Raises:** DeclarationError, PastHorizon, SolveError.
    """
    into, outcome = into or Formula(), as_outcome(outcome)
    if not isinstance(into, Tree | Formula):
        raise DeclarationError(f"distill: into={into!r} is no student. Write into=Tree(depth=3) or into=Formula(terms=4).")
    rng = generator(as_key(key), 53)
    names, units, x, y, group = _lesson(twin, outcome, inputs, prior, structure, rng)
    moving = np.std(x, axis=0) > 1e-12 * np.abs(np.mean(x, axis=0))
    names, x = [n for n, m in zip(names, moving, strict=True) if m], x[:, moving]
    held = np.isin(group[:, 0], _some(group[:, 0], rng)) | np.isin(group[:, 1], _some(group[:, 1], rng))
    if not names or held.all() or (~held).sum() < 20:
        raise SolveError("distill: too few draws could be solved to learn from. Personalize with more draws, or vary inputs.")
    asked = settled(twin, outcome)
    known = {n: units[n] for n in names}
    make = _tree if isinstance(into, Tree) else _formula
    model, used, told = make(into, known, x[~held], y[~held], asked.unit or "")
    spread = np.sum((y[held] - y[held].mean()) ** 2)
    fidelity = float(1.0 - np.sum((y[held] - model(x[held])) ** 2) / spread) if spread > 0 else float("nan")
    over = "prior" if prior else "posterior"
    amounts = f", and amounts of doses from {_RANGE[0]:g} to {_RANGE[1]:g} times those given" * bool(inputs and group[:, 1].max())
    head = f"{asked.label}{f' [{asked.unit}]' if asked.unit not in (None, '', '1') else ''}, told over the {over}{amounts}:"
    kept = f"{int(held.sum())} of {len(y)} rows"
    tail = f"Fidelity: R^2 {fidelity:.3f} on bodies and worlds held back ({kept}). It repeats the twin, and is not the body."
    text = "\n".join([head, *("  " + line for line in told), tail])
    return Student(asked, into, known, tuple(used), fidelity, len(y), text, model)


def _some(labels, rng):
    """A share of the distinct labels, none where there is one alone."""
    unique = np.unique(labels)
    return rng.permutation(unique)[: round(_HELD * len(unique))] if len(unique) > 3 else unique[:0]


def _lesson(twin, outcome, inputs, prior, structure, rng):
    """Names, units, features (rows, features), answers (rows,), and (body, world) of each row."""
    fit = twin.fits[structure]
    one = dataclasses.replace(twin, fits=(fit,), days=(twin.days[structure],), shares=())
    first, last = reach(one, outcome)
    spec, world = fit.model.spec, one.world()
    given = [n for n in spec.doses if any(first <= d.time <= last and d.amount for d in world.inputs[n].doses)] if inputs else []
    factors = np.ones((1, len(given)))
    if given:
        strata = np.stack([rng.permutation(_WORLDS) for _ in given], axis=1)
        drawn = _RANGE[0] + (_RANGE[1] - _RANGE[0]) * (strata + rng.random(strata.shape)) / _WORLDS
        factors = np.concatenate([factors, drawn])
    worlds = [scaled_doses(one, dict(zip(given, row, strict=True)), (first, last)) for row in factors]
    names = (outcome.name,) if outcome.name else None
    values = np.stack([outcome.of(c) for c in simulate_worlds(worlds, prior=prior, names=names)])  # (worlds, draws)
    source = fit.prior_values if prior else fit.values
    sites = [s for s in fit.kernel.sites if s.kind == "system" and s.size == 1]
    index = thinned(len(source[sites[0].name]), values.shape[1]) if sites else np.arange(values.shape[1])
    units = {s.name: unit_of(fit.model, s.name) for s in sites}
    columns = [np.tile(np.asarray(source[s.name], float)[index], (len(worlds), 1)) for s in sites]
    for i, name in enumerate(given):
        total = sum(d.amount for d in world.inputs[name].doses if first <= d.time <= last and d.amount)
        units[f"{name} in all"] = spec.doses[name].unit
        columns.append(np.tile(factors[:, i : i + 1] * total, (1, values.shape[1])))
    bodies, places = np.meshgrid(np.arange(values.shape[1]), np.arange(len(worlds)))
    x, y = np.stack(columns, axis=-1).reshape(-1, len(columns)), values.ravel()
    group = np.stack([bodies.ravel(), places.ravel()], axis=1)
    good = np.isfinite(y) & np.isfinite(x).all(axis=1)
    return list(units), units, x[good], y[good], group[good]


# ----------------------------------------------------------------------------------------------------- students


def _tree(into: Tree, units, x, y, unit):
    from sklearn.tree import DecisionTreeRegressor

    names = list(units)
    tree = DecisionTreeRegressor(max_depth=into.depth, min_samples_leaf=max(1, int(into.least * len(y))), random_state=0)
    tree.fit(x, y)
    t = tree.tree_
    lines, used = [], {}

    def walk(node, depth):
        pad = "    " * depth
        if t.children_left[node] < 0:
            inside = y[tree.apply(x) == node]
            low, high = np.quantile(inside, [0.05, 0.95])
            lines.append(f"{pad}{plain(t.value[node].item())} {unit} (90 % of them {plain(low)} to {plain(high)}; "
                         f"{100 * len(inside) / len(y):.0f} % of the rows)")  # fmt: skip
            return
        name = names[t.feature[node]]
        used[name] = None
        for child, sign in ((t.children_left[node], "at most"), (t.children_right[node], "more than")):
            lines.append(f"{pad}{name} {sign} {plain(t.threshold[node])} {units[name]}:".replace(" 1:", ":"))
            walk(child, depth + 1)

    walk(0, 0)
    return tree.predict, tuple(used), lines


def _formula(into: Formula, units, x, y, unit):
    """Forward selection of a power law and of a sum, and the one of them that foretells better on a fifth put aside."""
    names, kinds = list(units), [False]
    if np.all(y > 0) and np.all(x > 0):
        kinds.append(True)
    aside = np.arange(len(y)) % 5 == 0
    best = None
    for logs in kinds:
        chosen, _ = _selected(x[~aside], y[~aside], into.terms, logs)
        model = _fitted(x[~aside], y[~aside], chosen, logs)
        miss = float(np.mean((y[aside] - _said(model, x[aside])) ** 2))
        if best is None or miss < best[0]:
            best = (miss, logs, chosen)
    assert best is not None
    _, logs, chosen = best
    model = _fitted(x, y, chosen, logs)
    center = model[1]

    def ref(i):
        return f"{plain(center[i])} {units[names[i]]}".removesuffix(" 1")

    if logs:
        powers = [f" x ({names[i]} / {ref(i)})^{b:.2f}" for i, b in zip(chosen, model[3], strict=True)]
        lines = [f"{plain(np.exp(model[2]))} {unit}" + "".join(powers)]
    else:
        sizes = model[3] * center[list(chosen)]
        signs = ["+" if b >= 0 else "-" for b in sizes]
        terms = [f" {s} {plain(abs(b))} ({names[i]} / {ref(i)} - 1)" for i, b, s in zip(chosen, sizes, signs, strict=True)]
        lines = [f"{plain(model[2])}{''.join(terms)} {unit}"]
    return (lambda rows: _said(model, np.asarray(rows, float))), tuple(names[i] for i in chosen), lines


def _columns(x, center, logs):
    return np.log(x / center) if logs else x - center


def _selected(x, y, most, logs):
    """Places of the features that lessen the residual most, one by one, while each takes at least half a percent of the
    variance.
    """
    center = np.median(x, axis=0)
    columns, target = _columns(x, center, logs), np.log(y) if logs else y
    chosen, left = [], float(np.var(target))
    whole = left
    while len(chosen) < min(most, x.shape[1]):
        gains = {}
        for i in set(range(x.shape[1])) - set(chosen):
            design = np.column_stack([np.ones(len(y)), columns[:, [*chosen, i]]])
            fit = np.linalg.lstsq(design, target, rcond=None)[0]
            gains[i] = float(np.var(target - design @ fit))
        i = min(gains, key=lambda k: gains[k])
        if left - gains[i] < 0.005 * whole:
            break
        chosen.append(i)
        left = gains[i]
    return chosen, left


def _fitted(x, y, chosen, logs):
    center = np.median(x, axis=0)
    columns, target = _columns(x, center, logs), np.log(y) if logs else y
    design = np.column_stack([np.ones(len(y)), columns[:, chosen]])
    found = np.linalg.lstsq(design, target, rcond=None)[0]
    return logs, center, float(found[0]), found[1:], tuple(chosen)


def _said(model, x):
    logs, center, constant, slopes, chosen = model
    found = constant + _columns(x, center, logs)[:, list(chosen)] @ slopes
    return np.exp(found) if logs else found
