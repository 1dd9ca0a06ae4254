"""Units of terms: what each JAX primitive does to dimension and scale, and the walk through a jaxpr.

A `Term` is what is known of one variable: its unit, how it reads, what it depends on, its degree in the states. A
primitive without a rule here gives an *unchecked* term, which is reported, never taken as right.
"""

import contextlib
import contextvars
import dataclasses
import linecache
import os
from dataclasses import dataclass

import equinox as eqx
import jax
import numpy as np
from jax._src import source_info_util  # the only private import: no public way leads from an equation to its line
from jax.extend.core import Literal, Primitive

from hybridtwin.errors import UnitError
from hybridtwin.units import ONE, Unit, bracketed, parse

# ---------------------------------------------------------------------------------------------- numbers with a unit

_walking: contextvars.ContextVar[bool] = contextvars.ContextVar("hybridtwin_walking", default=False)
_quantity_p = Primitive("quantity")  # exists during the walk only: it marks a value with its unit in the jaxpr
_quantity_p.def_abstract_eval(lambda value, **_: value)


def const(value, unit: str):
    """A number with a unit, for use inside `rates` and its kin: `ht.const(70, "kg")`.

    A plain float (an array of float64 for an array) except while units are checked.
    """
    parse(unit)
    if _walking.get():
        return _quantity_p.bind(
            np.asarray(value, np.float32), unit=unit, label=f"{value:g} {unit}" if np.ndim(value) == 0 else unit
        )
    return float(value) if np.ndim(value) == 0 else np.asarray(value, float)


def empirical(value, unit: str, source: str = ""):
    """The value of a fitted formula, whose unit cannot be derived from its terms: the named escape from the walk.

    `value` is returned untouched; `source` says where the formula was published.
    """
    parse(unit)
    if _walking.get():
        return _quantity_p.bind(
            value if hasattr(value, "aval") else np.asarray(value, np.float32), unit=unit, label="empirical(...)"
        )
    return value


@contextlib.contextmanager
def marked():
    """`const` and `empirical` leave their mark, and the traces of the author's own jitted functions, which hold the
    mark, do not share a cache with real runs (the matmul precision is part of JAX's key).
    """
    token = _walking.set(True)
    try:
        with jax.default_matmul_precision("BF16_BF16_F32_X9"):
            yield
    finally:
        _walking.reset(token)


# ---------------------------------------------------------------------------------------------- terms and rules


@dataclass(frozen=True)
class Term:
    """What the walk knows of one variable: unit (None: unchecked), text, what it depends on, degree in the states."""

    unit: Unit | None
    text: str
    rank: int = 3  # how tightly the text binds: sum 0, product 1, power 2, atom 3
    deps: frozenset = frozenset()
    degree: int = 0  # 0 free of states, 1 affine, 2 anything else
    free: bool = False  # zero, inf or nan: fits any unit
    number: float | None = None  # the value of a bare literal
    pure: bool = False  # known to be 0 where all states are 0, for degree 1: nothing is added that is free of states

    @property
    def quoted(self) -> str:
        unit = (
            ""
            if self.unit is None
            else " [a bare number]"
            if self.number is not None
            else f" {bracketed(self.unit.text)}"
        )
        return f'"{_short(self.text)}"{unit}'


class _Misfit(Exception):
    """A term whose unit does not fit: what, and the remedy. The walk adds where."""


def _short(text: str, width: int = 64) -> str:
    return text if len(text) <= width else text[: width - 4] + " ..."


def _inside(term: Term, rank: int) -> str:
    text = _short(term.text, 100)  # shared subexpressions would otherwise grow without bound
    return f"({text})" if term.rank < rank else text


def times(a: Unit, b: Unit) -> str:
    """Says the scale between two units of one dimension: "1 mg/min is 60 mg/h"."""
    big, small = (a, b) if a.ratio > b.ratio else (b, a)
    ratio = f"{float(big.ratio / small.ratio):.6g}"
    if big.text == "1":
        return f"{ratio} {small.text} is 1: a factor {ratio}"
    return f"1 {big.text} is {ratio}{'' if small.text == '1' else ' ' + small.text}: a factor {ratio}"


def bare(literal: Term, unit: Unit) -> str:
    """How a number gets the unit it must have."""
    return f'A bare number is dimensionless: write ht.const({literal.number:g}, "{unit.text}")'


def scaled(term: Term, unit: Unit) -> str:
    """How a term gets a unit that it must have, of its own dimension and another scale."""
    own = term.unit or ONE
    ratio = own.ratio / unit.ratio
    number = f"{float(ratio):.6g}" if ratio >= 1 else f"1 / {float(1 / ratio):.6g}"
    return f'{times(own, unit)}. Multiply it by ht.const({number}, "{(unit / own).text}"), or declare both in one unit'


def remedy_for(a: Term, b: Term) -> str:
    """How two terms of known units could be made to agree."""
    first, second = a.unit or ONE, b.unit or ONE
    for literal, unit in ((a, second), (b, first)):
        if literal.number is not None:
            return bare(literal, unit)
    if first.same_dimension(second):
        (big, unit), (_, small) = ((a, first), (b, second)) if first.ratio > second.ratio else ((b, second), (a, first))
        change = f'ht.const({float(unit.ratio / small.ratio):.6g}, "{(small / unit).text}")'
        return f"{times(first, second)}. Multiply {_short(big.text, 30)} by {change}, or declare both in one unit"
    return "Correct the term or a declared unit; a number with a unit is written ht.const(value, unit)"


def _join(terms, unit, text, rank=3, degree=None, **kwargs) -> Term:
    """A term made of `terms`; unless said otherwise a function of the states is not affine."""
    worst = max((t.degree for t in terms), default=0)
    return Term(
        unit,
        text,
        rank,
        frozenset().union(*(t.deps for t in terms)),
        min(2, 2 * worst if degree is None else degree),
        **kwargs,
    )


def _agree(verb: str, terms) -> Unit | None:
    """The one unit of terms that are added, compared or chosen from."""
    known = [t for t in terms if t.unit is not None and not t.free]
    for other in known[1:]:
        if not known[0].unit.matches(other.unit):
            raise _Misfit(f"cannot {verb} {known[0].quoted} and {other.quoted}", remedy_for(known[0], other))
    return known[0].unit if known else None


def _alike(verb, symbol=None, affine=False):
    def rule(eqn, terms):
        unit = _agree(verb, terms)
        free = all(t.free for t in terms)
        degree = max(t.degree for t in terms) if affine else None
        if symbol is None:
            return _join(
                terms,
                unit,
                f"{eqn.primitive.name}({', '.join(_short(t.text, 40) for t in terms)})",
                3,
                degree,
                free=free,
            )
        if (terms[0].free and symbol == " + ") or terms[1].free:
            kept = terms[0] if terms[1].free else terms[1]
            return _join(terms, unit, kept.text, kept.rank, degree, free=free)
        text = symbol.join(_inside(t, 0 if i == 0 or symbol == " + " else 1) for i, t in enumerate(terms))
        return _join(terms, unit, text, 0, degree, free=free, pure=affine and all(t.pure for t in terms))

    return rule


def _mul(eqn, terms):
    a, b = terms
    degree = a.degree + b.degree
    pure = (a.pure and b.degree == 0) or (b.pure and a.degree == 0)
    text = f"{_inside(a, 1)} * {_inside(b, 1)}"
    if a.free or b.free:
        return _join(terms, None, text, 1, degree, free=True)
    return _join(terms, None if a.unit is None or b.unit is None else a.unit * b.unit, text, 1, degree, pure=pure)


def _div(eqn, terms):
    a, b = terms
    degree = a.degree if b.degree == 0 else 2
    text = f"{_inside(a, 1)} / {_inside(b, 2)}"
    if a.free:
        return _join(terms, None, text, 1, degree, free=True)
    unit = None if a.unit is None or b.unit is None or b.free else a.unit / b.unit
    return _join(terms, unit, text, 1, degree, pure=a.pure and b.degree == 0)


def _power(exponent, name=None):
    def rule(eqn, terms):
        n = eqn.params["y"] if exponent is None else exponent
        base = terms[0]
        text = f"{name}({_short(base.text)})" if name else f"{_inside(base, 3)}**{n:g}"
        degree = base.degree if n == 1 else None
        return _join(
            terms, None if base.unit is None else base.unit**n, text, 3 if name else 2, degree, free=base.free and n > 0
        )

    return rule


def _pow(eqn, terms):
    base, n = terms
    _plain("an exponent", n)
    text = f"{_inside(base, 3)}**{_inside(n, 3)}"
    if base.unit is None:
        return _join(terms, None, text, 2, free=base.free)
    if n.number is not None:
        return _join(terms, base.unit**n.number, text, 2)
    if not base.unit.matches(ONE):
        raise _Misfit(
            f"the base of {_short(text)!r} is [{base.unit.text}] and its exponent is no fixed number, "
            "so the unit of the result "
            "would depend on a parameter",
            f'Write ({_short(base.text, 30)} / ht.const(reference, "{base.unit.text}"))**{_inside(n, 3)}',
        )
    return _join(terms, ONE, text, 2)


def _plain(what: str, term: Term) -> None:
    if term.free or term.unit is None or term.unit.matches(ONE):
        return
    if term.unit.dimensionless:
        raise _Misfit(
            f"{what} needs a plain number, but {term.quoted} has a scale", f"{times(term.unit, ONE)}. Convert it to 1"
        )
    raise _Misfit(
        f"{what} needs a plain number, not {term.quoted}",
        f'Divide by a reference: {_inside(term, 1)} / ht.const(value, "{term.unit.text}")',
    )


def _function(eqn, terms):
    name = eqn.primitive.name
    for term in terms:
        _plain(name, term)
    return _join(terms, ONE, f"{name}({', '.join(_short(t.text) for t in terms)})")


def _same(eqn, terms):  # shape and type only
    return terms[0]


def _neg(eqn, terms):
    return dataclasses.replace(terms[0], text=f"-{_inside(terms[0], 1)}", rank=1, number=None)


def _compare(eqn, terms):
    _agree("compare", terms)
    return _join(terms, ONE, f"{_inside(terms[0], 1)} {_COMPARE[eqn.primitive.name]} {_inside(terms[1], 1)}", 0)


def _logic(eqn, terms):
    return _join(terms, ONE, f"{eqn.primitive.name}(...)")


def _select(eqn, terms):
    which, *cases = terms
    unit = _agree("choose between", cases)
    degree = max(t.degree for t in cases) if which.degree == 0 else 2
    text = f"where({_short(which.text, 30)}, {', '.join(_short(t.text, 30) for t in reversed(cases))})"
    return _join(terms, unit, text, 3, degree, free=all(t.free for t in cases))


def _ratio(eqn, terms):
    _agree("take the angle of", terms)
    return _join(terms, ONE, f"{eqn.primitive.name}(...)")


def _gathered(eqn, terms):
    first = terms[0]
    return _join(
        terms,
        first.unit,
        f"{_inside(first, 3)}[...]",
        3,
        first.degree if all(t.degree == 0 for t in terms[1:]) else 2,
        free=first.free,
    )


def _stack(eqn, terms):
    units = [t.unit for t in terms if not t.free]
    one = (
        bool(units)
        and all(u is not None and u.matches(units[0]) for u in units if units[0] is not None)
        and units[0] is not None
    )
    return _join(
        terms,
        units[0] if one else None,
        f"[{', '.join(_short(t.text, 20) for t in terms)}]",
        3,
        max(t.degree for t in terms),
        free=all(t.free for t in terms),
    )


def _quantity(eqn, terms):
    label = eqn.params["label"]
    return _join(terms, parse(eqn.params["unit"]), label, 3, terms[0].degree)


_COMPARE = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq_to": "==",
    "lt_to": "<",
    "le_to": "<=",
}
_RULES = {
    "add": _alike("add", " + ", affine=True),
    "add_any": _alike("add", " + ", affine=True),
    "sub": _alike("subtract", " - ", affine=True),
    "max": _alike("take the larger of"),
    "min": _alike("take the smaller of"),
    "clamp": _alike("clamp"),
    "rem": _alike("divide with rest"),
    "nextafter": _alike("step between"),
    "mul": _mul,
    "dot_general": _mul,
    "div": _div,
    "integer_pow": _power(None),
    "square": _power(2),
    "sqrt": _power(0.5, "sqrt"),
    "rsqrt": _power(-0.5, "rsqrt"),
    "cbrt": _power(1 / 3, "cbrt"),
    "pow": _pow,
    "neg": _neg,
    "select_n": _select,
    "atan2": _ratio,
    "quantity": _quantity,
    "concatenate": _stack,
    "stack": _stack,
    "abs": lambda e, t: _join(t, t[0].unit, f"abs({_short(t[0].text)})", free=t[0].free),
    "sign": _logic,
    "is_finite": _logic,
    "iota": lambda e, t: Term(ONE, "iota"),
    "reduce_max": lambda e, t: _join(t, t[0].unit, f"max({t[0].text})", free=t[0].free),
    "reduce_min": lambda e, t: _join(t, t[0].unit, f"min({t[0].text})", free=t[0].free),
    **dict.fromkeys(("and", "or", "not", "xor"), _logic),
    **dict.fromkeys(_COMPARE, _compare),
    **dict.fromkeys(
        (
            "convert_element_type",
            "broadcast_in_dim",
            "reshape",
            "squeeze",
            "expand_dims",
            "slice",
            "transpose",
            "rev",
            "copy",
            "copy_p",
            "stop_gradient",
            "reduce_sum",
            "cumsum",
            "real",
            "reduce_precision",
            "optimization_barrier",
        ),
        _same,
    ),
    **dict.fromkeys(("gather", "dynamic_slice"), _gathered),
    **dict.fromkeys(
        (
            "exp",
            "exp2",
            "expm1",
            "log",
            "log1p",
            "tanh",
            "logistic",
            "erf",
            "erfc",
            "erf_inv",
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "sinh",
            "cosh",
            "asinh",
            "acosh",
            "atanh",
            "lgamma",
            "digamma",
            "floor",
            "ceil",
            "round",
        ),
        _function,
    ),
}


class Walk:
    """One walk through the jaxpr of one method."""

    def __init__(self, where: str, unchecked: set):
        self.where, self.unchecked, self.top = where, unchecked, None

    def run(self, jaxpr, consts, terms, targets=None):
        """Terms of the outputs. `targets` names them, at the top level only: there errors learn their place."""
        known = dict(zip(jaxpr.constvars, map(_literal, consts), strict=True)) | dict(
            zip(jaxpr.invars, terms, strict=True)
        )
        read = lambda v: _literal(v.val) if isinstance(v, Literal) else known[v]
        for eqn in jaxpr.eqns:
            if targets is not None:
                self.top = eqn
            try:
                results = self.apply(eqn, [read(v) for v in eqn.invars])
            except _Misfit as misfit:
                if targets is None:
                    raise
                what, remedy = misfit.args
                reached = _reached(jaxpr, eqn, targets)
                raise UnitError(
                    f"{self.where}: {reached + ': ' if reached else ''}{what}{line_of(eqn)}. {remedy}"
                ) from None
            known.update(zip(eqn.outvars, results, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def apply(self, eqn, terms):
        learned = sorted({name for t in terms if t.unit is None for name in t.deps if name.startswith("learned ")})
        if learned:
            self.unchecked.add(f"{self.where}: {learned[0]}")
        name = eqn.primitive.name
        if name == "cond":
            return self.branches(eqn, terms)
        inner = next((eqn.params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in eqn.params), None)
        if inner is not None and name not in ("scan", "while", "pallas_call"):
            closed, label = hasattr(inner, "consts"), str(eqn.params.get("name", "_"))
            try:
                results = self.run(inner.jaxpr if closed else inner, inner.consts if closed else (), terms)
            except _Misfit as misfit:
                what, remedy = misfit.args
                raise (
                    misfit if label[0] == "_" or what.startswith("in ") else _Misfit(f"in {label}: {what}", remedy)
                ) from None
            short = f"{label}({', '.join(_short(t.text, 30) for t in terms)})"
            return [
                dataclasses.replace(r, text=short, rank=3) if len(r.text) > len(short) and label[0] != "_" else r
                for r in results
            ]
        rule = _RULES.get(name)
        if rule is None:
            self.unchecked.add(f"{self.where}: the operation {name}{line_of(self.top)}")
            return [_join(terms, None, f"{name}(...)")] * len(eqn.outvars)
        result = rule(eqn, terms)
        if result.unit is None and not result.free and all(t.unit is not None or t.free for t in terms):
            self.unchecked.add(f"{self.where}: {name} of mixed units{line_of(self.top)}")
        return [result] * len(eqn.outvars)

    def branches(self, eqn, terms):
        index, *operands = terms
        each = [self.run(b.jaxpr, b.consts, operands) for b in eqn.params["branches"]]
        return [
            _join(
                [index, *cases],
                _agree("choose between", cases),
                f"cond({_short(index.text, 30)})",
                3,
                max(c.degree for c in cases) if index.degree == 0 else 2,
                free=all(c.free for c in cases),
            )
            for cases in zip(*each, strict=True)
        ]


def _literal(value) -> Term:
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        return Term(ONE, "...")
    free = (array.dtype.kind == "f" and bool(np.all((array == 0) | ~np.isfinite(array)))) or (
        array.dtype.kind in "iu" and not array.any()
    )
    number = float(array) if array.ndim == 0 and array.dtype.kind in "iuf" else None
    return Term(
        None if free else ONE,
        f"{number:g}" if number is not None else "array",
        free=free,
        number=None if free else number,
    )


def _reached(jaxpr, eqn, targets) -> str:
    """Which of the targets the result of `eqn` goes into."""
    touched = set(eqn.outvars)
    for later in jaxpr.eqns:
        if any(not isinstance(v, Literal) and v in touched for v in later.invars):
            touched.update(later.outvars)
    return next(
        (t for t, v in zip(targets, jaxpr.outvars, strict=True) if not isinstance(v, Literal) and v in touched), ""
    )


_LIBRARIES = (os.path.dirname(eqx.__file__), __file__)  # the author's line is further out than these


def line_of(eqn) -> str:
    """' (model.py, line 12: "central=...")' of the author's line that made the equation; "" if it cannot be found."""
    for frame in source_info_util.user_frames(eqn.source_info.traceback) if eqn else ():
        if not frame.file_name.startswith(_LIBRARIES):
            text = _short(linecache.getline(frame.file_name, frame.start_line).strip(), 100)
            return f' ({os.path.basename(frame.file_name)}, line {frame.start_line}: "{text}")' if text else ""
    return ""
