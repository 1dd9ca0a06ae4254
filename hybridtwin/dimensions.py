"""The unit check of a whole system: dimension *and* scale of `rates`, `outputs`, `switches`, `initial`, `steady`, `dosing`.

Each method is traced once on abstract scalars (no JAX backend starts) and its jaxpr is walked (terms.py) with a unit
for every variable: adding mg to mL, a rate per minute in a model of hours (x 60), mg/L against mg/dL (x 10) are a
`UnitError` that names the term and its line. The same walk reads off the graph (what each rate depends on) and whether
the rates are affine in the states.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from hybridtwin.errors import DeclarationError, UnitError
from hybridtwin.fields import Switch, SwitchField, nearest
from hybridtwin.terms import Term, Walk, bare, const, empirical, line_of, marked, scaled
from hybridtwin.units import ONE, Unit, factor, parse

__all__ = ["Report", "check", "const", "empirical", "is_linear"]


@dataclass(frozen=True)
class Report:
    """What the walk read off a system.

    outputs: name -> (unit, doc); routes: dose -> the parts it has; graph: edges between "x.state", "u.input",
    "parameter" and "y.output"; drawn: the same with "c.coupling" between; unchecked: what it could not follow;
    linear: rates affine in the states and the same at all times; unforced: and known to be 0 where all states are;
    noise: states with process noise, and whether its size depends on the state itself; timed: rates that depend on the time
    itself; resting: parameters on which `steady` depends; starts: edges by which states begin, flows: all others;
    conserved: unit of each amount by law.
    """

    outputs: dict[str, tuple[str, str]]
    routes: dict[str, tuple[str, ...]]
    graph: tuple[tuple[str, str], ...]
    drawn: tuple[tuple[str, str], ...]
    unchecked: tuple[str, ...]
    linear: bool
    unforced: bool
    noise: tuple[tuple[str, bool], ...] = ()
    switches: tuple[SwitchField, ...] = ()
    timed: bool = False
    resting: frozenset[str] = frozenset()
    starts: frozenset[tuple[str, str]] = frozenset()
    flows: frozenset[tuple[str, str]] = frozenset()
    conserved: dict[str, str] = dataclasses.field(default_factory=dict)


class _Tracer:
    """Traces the methods of one system on named abstract scalars."""

    def __init__(self, system, spec):
        self.system, self.spec, self.unchecked, self.edges = system, spec, set(), set()
        self.drawn, self.through = set(), {}  # edges as drawn; what a coupling depends on
        declared = {**spec.parameters, **spec.constants}
        self.arrays, self.rest = eqx.partition(system.with_values(dict.fromkeys(declared, 0.0)), eqx.is_array)
        inputs = {**spec.covariates, **spec.signals}
        self.terms = {
            "p": {p: Term(parse(f.unit), p, deps=frozenset([p])) for p, f in declared.items()},
            "x": {p: Term(parse(f.unit), p, deps=frozenset([f"x.{p}"]), degree=1, pure=True) for p, f in spec.states.items()},
            "u": {p: Term(parse(f.unit), p, deps=frozenset([f"u.{p}"])) for p, f in inputs.items()},
            "t": Term(parse(spec.time), "t", deps=frozenset(["t"])),
        }
        learned, tree = jax.tree_util.tree_flatten_with_path(self.arrays)
        self.learned = jax.tree.unflatten(
            tree,
            [
                Term(
                    None,
                    str(getattr(path[0], "name", path[0])),
                    deps=frozenset([f"learned {getattr(path[0], 'name', path[0])}"]),
                )
                for path, _ in learned
            ],
        )

    def trace(self, method: str, fn, expected, more=None) -> dict[str, Term]:
        """Terms by target of `fn(body, t, x, u)`, which returns values by target; `more`: further terms, by keyword.

        Couplings are part of `u` once they are known, but not where a method has no state to make them from.

        `expected()`, asked after the trace, gives the declared unit of each target and why it is that.
        """
        where = f"{self.spec.name}.{method}"
        number = jax.ShapeDtypeStruct((), np.float32)
        given = self.terms | {"z": more or {}}
        if method in ("initial", "steady", "dosing"):
            given["u"] = {name: term for name, term in given["u"].items() if name not in self.through}
        scalars = jax.tree.map(lambda _: number, given, is_leaf=_is_term)
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), self.arrays)

        def call(arrays, v):
            body = eqx.combine(arrays, self.rest).with_values(v["p"])
            return fn(body, v["t"], self.spec.state(v["x"]), self.spec.input(v["u"]), **v["z"])

        with marked():
            try:
                closed, out = jax.make_jaxpr(call, return_shape=True)(shapes, scalars)
            except jax.errors.ConcretizationTypeError as error:
                raise DeclarationError(
                    f"{where} decides in Python on a value that is only known when it runs. "
                    "Use jnp.where(condition, a, b) instead of if, and jnp functions instead of math"
                ) from error
            except jax.errors.TracerArrayConversionError as error:
                raise DeclarationError(
                    f"{where} calls a function of NumPy on a value that is only known when it runs. "
                    "Use the same function of jax.numpy: jnp.exp instead of np.exp"
                ) from error
            except DeclarationError as error:  # such as a state that is missing: say where
                if str(error).startswith((where, f"{self.spec.name}:")):
                    raise
                raise DeclarationError(f"{where}: {error}") from error
            except TypeError as error:
                if not (self.spec.couplings and "NoneType" in str(error)):
                    raise
                raise DeclarationError(
                    f"{where} reads a coupling ({', '.join(self.spec.couplings)}), which is not known there. "
                    "Write it as a method of its own, and call that here and in couplings"
                ) from error
            except AttributeError as error:  # left as it is, `spec`, a property, would seem to be what is missing
                raise DeclarationError(f"{where}: {error}") from error
        targets = sorted(out)
        for target in targets:
            if out[target].shape != ():
                raise DeclarationError(f"{where}: {target} has shape {out[target].shape}. Return a scalar for each")
        leaves = [*jax.tree.leaves(self.learned, is_leaf=_is_term), *jax.tree.leaves(given, is_leaf=_is_term)]
        terms = dict(
            zip(targets, Walk(where, self.unchecked).run(closed.jaxpr, closed.consts, leaves, targets), strict=True)
        )
        made = dict(zip(targets, closed.jaxpr.outvars, strict=True))
        for target, (unit, why) in expected().items():
            eqn = next(
                (e for e in closed.jaxpr.eqns if not isinstance(made[target], Literal) and made[target] in e.outvars),
                None,
            )
            self.demand(f"{where}: {target}", terms[target], unit, why, line_of(eqn))
        return terms

    def demand(self, target: str, term: Term, unit: Unit, why: str, line: str) -> None:
        """The result itself must have the declared unit."""
        if term.free:
            return
        if term.unit is None:
            self.unchecked.add(target + line)
        elif not term.unit.matches(unit):
            remedy = "Correct the formula or a declared unit"
            if term.number is not None:
                remedy = bare(term, unit)
            elif term.unit.same_dimension(unit):
                remedy = scaled(term, unit)
            raise UnitError(f"{target} is {term.quoted}, but {why} needs [{unit.text}]{line}. {remedy}")

    def link(self, terms: dict[str, Term], prefix: str) -> None:
        """Remember what each target depends on as edges of the graph."""
        for target, term in terms.items():
            self.depends(prefix + target.split(" ")[-1], term.deps)

    def depends(self, node: str, deps) -> None:
        """A node depends on all of these, and through couplings on what they depend on."""
        self.drawn |= {(source, node) for source in deps if source not in ("t", node)}
        self.edges |= {(source, node) for source in self.far(deps) if source not in ("t", node)}

    def far(self, deps) -> frozenset[str]:
        """What these depend on where couplings are written out."""
        return frozenset().union(*(self.through.get(source, [source]) for source in deps))


def _is_term(value) -> bool:
    return isinstance(value, Term)


def _flat(spec, method: str, found, also: str = "") -> dict[str, Any]:
    """What a method returned, by state: it must be a State."""
    if not isinstance(found, spec.state_type):
        raise DeclarationError(
            f"{spec.name}.{method} returns {type(found).__name__}, not its State. Return self.State(...){also}"
        )
    return spec.flatten(found)


def _by_state(tracer: _Tracer, method: str, label: str, per: Unit, what: str, also: str = "") -> dict[str, Term]:
    """Terms by state of a method that returns a State; `label` names a target, `per` divides its unit."""
    spec = tracer.spec

    def values(body, t, x, u):
        found = _flat(spec, method, getattr(body, method)(t, x, u), also)
        return {label.format(path): value for path, value in found.items()}

    def expected():
        states = spec.states.items()
        return {label.format(p): (parse(f.unit) / per, f"{p} [{f.unit}] {what} in {spec.time}") for p, f in states}

    terms = tracer.trace(method, values, expected)
    return {path: terms[label.format(path)] for path in spec.states}


def _rates(tracer: _Tracer) -> dict[str, Term]:
    return _by_state(tracer, "rates", "d {}/dt", parse(tracer.spec.time), "with time")


def _noise(tracer: _Tracer) -> tuple[tuple[str, bool], ...]:
    root = parse(tracer.spec.time) ** 0.5
    found = _by_state(tracer, "diffusion", "noise of {}", root, "per square root of time", ", 0.0 for no noise")
    tracer.link(found, "x.")
    return tuple((p, f"x.{p}" in tracer.far(term.deps)) for p, term in found.items() if term.deps or not term.free)


def _couplings(tracer: _Tracer) -> None:
    """What parts give to each other: each must have its declared unit, and then is an input of the whole."""
    spec = tracer.spec

    def values(body, t, x, u):
        found = body.couplings(x, u)
        if not isinstance(found, dict):
            raise DeclarationError(
                f"{spec.name}.couplings returns {type(found).__name__}. Return a dict: {{name of each ht.coupled: value}}"
            )
        if set(found) != set(spec.couplings):
            raise DeclarationError(
                f"{spec.name}.couplings gives {', '.join(found) or 'nothing'}, but Input declares "
                f"{', '.join(spec.couplings) or 'no coupling'}. Give a value for each ht.coupled, by its name"
            )
        return found

    declared = {name: parse(field.unit) for name, field in spec.couplings.items()}
    terms = tracer.trace("couplings", values, lambda: {k: (unit, "its declaration") for k, unit in declared.items()})
    for name, term in terms.items():
        tracer.depends(f"c.{name}", term.deps)
        tracer.through[name] = tracer.through[f"c.{name}"] = term.deps
        tracer.terms["u"][name] = Term(declared[name], name, deps=frozenset([f"c.{name}"]), degree=term.degree, pure=term.pure)


def _outputs(tracer: _Tracer) -> dict[str, tuple[str, str]]:
    name, declared = tracer.spec.name, {}

    def outputs(body, t, x, u):
        found = body.outputs(x, u)
        if not isinstance(found, dict) or not all(hasattr(o, "unit") and hasattr(o, "value") for o in found.values()):
            raise DeclarationError(
                f'{name}.outputs must return a dict of ht.output(...). Write {{"C": ht.output(value, "mg/L")}}'
            )
        for key, o in found.items():
            of_state = tracer.spec.states.get(key)
            if of_state is not None and not parse(o.unit).matches(parse(of_state.unit)):
                raise DeclarationError(
                    f"{name}.outputs: {key} [{o.unit}] has the name of a state [{of_state.unit}]. Give the output another name"
                )
        declared.update({key: (o.unit, o.doc) for key, o in found.items()})
        return {key: o.value for key, o in found.items()}

    tracer.link(
        tracer.trace(
            "outputs", outputs, lambda: {k: (parse(unit), "its declaration") for k, (unit, _) in declared.items()}
        ),
        "y.",
    )
    return declared


def _routes(tracer: _Tracer) -> dict[str, tuple[str, ...]]:
    spec, time, found = tracer.spec, parse(tracer.spec.time), {}

    def dosing(body, t, x, u):
        routes = body.dosing(u)
        if not isinstance(routes, dict):
            raise DeclarationError(
                f'{spec.name}.dosing returns {type(routes).__name__}. Return a dict: {{"name of a dose": ht.route(lag=...)}}'
            )
        for key, route in routes.items():
            if key not in spec.doses:
                raise DeclarationError(
                    f"{spec.name}.dosing names {key!r}, which is no dose. Doses: {', '.join(spec.doses) or 'none'}"
                )
            if not hasattr(route, "lag"):
                raise DeclarationError(f"{spec.name}.dosing gives {route!r} for {key!r}. Write ht.route(lag=...)")
            found[key] = tuple(k for k in ("lag", "fraction", "rate", "duration") if getattr(route, k) is not None)
        return {f"{part} of {key}": getattr(routes[key], part) for key, parts in found.items() for part in parts}

    def expected():
        units = {"lag": time, "duration": time, "fraction": ONE}
        return {
            f"{part} of {key}": (units[part] if part in units else parse(spec.doses[key].unit) / time, f"a {part}")
            for key, parts in found.items()
            for part in parts
        }

    terms = tracer.trace("dosing", dosing, expected)
    tracer.link(terms, "u.")
    return found


def _portions(tracer: _Tracer):
    """What a portion of a dose changes, a dose at a time."""
    spec = tracer.spec
    for name, declared in spec.doses.items():
        if declared.portion is None:
            continue

        def portion(body, t, x, u, amount, first, name=name):
            return _flat(spec, "portion", body.portion(name, x, u, amount, first))

        more = {"amount": Term(parse(declared.unit), "amount"), "first": Term(ONE, "first")}
        tracer.trace(
            "portion", portion, lambda: {p: (parse(f.unit), "its declaration") for p, f in spec.states.items()}, more
        )


def _conserved(tracer: _Tracer) -> dict[str, str]:
    """Units of the amounts: one and what it gains per time must fit each other; which they are is the author's."""

    def values(body, t, x, u):
        found = body.conserved(x, u)
        if not isinstance(found, dict) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in found.values()):
            raise DeclarationError(
                f"{tracer.spec.name}.conserved must return a dict: {{what is conserved: (amount, what it gains per time)}}"
            )
        return {k: pair[0] for k, pair in found.items()} | {f"gain of {k}": pair[1] for k, pair in found.items()}

    terms = tracer.trace("conserved", values, dict)
    units = {}
    for name in [k for k in terms if f"gain of {k}" in terms]:
        amount, gain = terms[name], terms[f"gain of {name}"]
        if amount.unit is None or amount.free:
            tracer.unchecked.add(f"{tracer.spec.name}.conserved: {name}")
            continue
        units[name] = amount.unit.text
        tracer.demand(f"{tracer.spec.name}.conserved: gain of {name}", gain, amount.unit / parse(tracer.spec.time),
                      f"{name} in {tracer.spec.time}", "")  # fmt: skip
    return units


def _switches(tracer: _Tracer) -> tuple[SwitchField, ...]:
    """Switches in declared order; what they set must have the unit of its state, what they watch may have any."""
    spec, found = tracer.spec, {}

    def values(body, t, x, u):
        switches = body.switches(x, u)
        if not isinstance(switches, dict):
            raise DeclarationError(f"{spec.name}.switches must return a dict of ht.switch(...), by name")
        for name, made in switches.items():
            if not isinstance(made, Switch):
                raise DeclarationError(f"{spec.name}.switches gives {made!r} for {name!r}. Write ht.switch(passes, {{...}})")
            if wrong := [path for path in made.sets if path not in spec.states]:
                raise DeclarationError(
                    f"{spec.name}: {name!r} sets {wrong[0]!r}, which is no state. {nearest(wrong[0], spec.states)}"
                )
            if not made.sets:
                raise DeclarationError(f"{spec.name}: {name!r} sets nothing. Say which state changes, as in {{state: value}}")
            found[name] = SwitchField(name, tuple(made.sets), factor(made.at_most, ONE / parse(spec.time)))
        parts = {f"what {name} watches": jnp.asarray(made.passes) for name, made in switches.items()}
        parts |= {f"when {name} acts": jnp.asarray(made.only) for name, made in switches.items()}
        return parts | {f"{name}, {path}": value for name, made in switches.items() for path, value in made.sets.items()}

    def expected():
        return {
            f"{name}, {path}": (parse(spec.states[path].unit), f"{path} [{spec.states[path].unit}]")
            for name, field in found.items()
            for path in field.sets
        }

    terms = tracer.trace("switches", values, expected)
    for name, field in found.items():
        for path in field.sets:
            parts = (f"what {name} watches", f"when {name} acts", f"{name}, {path}")
            tracer.depends(f"x.{path}", frozenset().union(*(terms[part].deps for part in parts)))
    return tuple(found.values())


def check(system, spec=None) -> Report:
    """Check the units of a system (class or instance). Raises `UnitError` naming method, rate, term and line."""
    system = system() if isinstance(system, type) else system
    spec = system.spec if spec is None else spec
    tracer = _Tracer(system, spec)
    if spec.couplings or "couplings" in spec.defines:
        _couplings(tracer)
    tracer.edges = set()  # what ends in a coupling is drawn, no more
    rates = _rates(tracer)
    tracer.link(rates, "x.")
    noise = _noise(tracer) if "diffusion" in spec.defines else ()
    outputs = _outputs(tracer)
    routes = _routes(tracer) if "dosing" in spec.defines else {}
    if "portion" in spec.defines:
        _portions(tracer)
    conserved = _conserved(tracer) if "conserved" in spec.defines else {}
    switches = _switches(tracer) if "switches" in spec.defines else ()
    resting: frozenset[str] = frozenset()
    for name, dose in spec.doses.items():
        tracer.depends(f"x.{dose.into}", [f"u.{name}"])
    flows, tracer.edges = frozenset(tracer.edges), set()
    for method in sorted({"initial", "steady"} & spec.defines):

        def values(body, t, x, u, method=method):
            return _flat(spec, method, getattr(body, method)(u))

        terms = tracer.trace(
            method, values, lambda: {p: (parse(f.unit), "its declaration") for p, f in spec.states.items()}
        )
        if method == "initial":
            tracer.link(terms, "x.")
        else:
            resting = frozenset(d for term in terms.values() for d in term.deps)
    return Report(
        outputs,
        routes,
        tuple(sorted(flows | tracer.edges)),
        tuple(sorted(tracer.drawn)),
        tuple(sorted(tracer.unchecked)),
        all(term.degree < 2 and "t" not in term.deps for term in rates.values()),
        all(term.degree == 1 and term.pure and "t" not in term.deps for term in rates.values()),
        noise,
        switches,
        any("t" in term.deps for term in rates.values()),
        resting,
        frozenset(tracer.edges),
        flows,
        conserved,
    )


def checked_equation(spec, state: str, rate) -> frozenset[str]:
    """What another equation of a state depends on: "x.state", "u.input", parameters. Errors as in `check`."""
    tracer, target = _Tracer(spec.example, spec), f"d {state}/dt"
    unit = spec.states[state].unit
    terms = tracer.trace(
        "do",
        lambda body, t, x, u: {target: rate(body, t, x, u)},
        lambda: {target: (parse(unit) / parse(spec.time), f"{state} [{unit}] with time in {spec.time}")},
    )
    return terms[target].deps


def is_linear(system) -> bool:
    """Whether the rates of a system (class or instance) are affine in its states, and the same at all times."""
    return check(system).linear
