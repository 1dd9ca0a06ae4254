"""Pooling: what people of a cohort have in common, as it is declared.

Each personal parameter is, on the eta scale (the logarithm of a log-normal one, the logit of a logit-normal one),

    x_i = theta + (L b)_i,   b_i ~ N(0, 1) for each person,   L L' = Omega,

with a typical value theta and between-person standard deviations (the roots of Omega's diagonal). Parameters declared
`shared=True` and those of the sensors are one number for the cohort.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist

from hybridtwin.coordinates import around, eta, eta_sd, normal_based, respread
from hybridtwin.errors import DeclarationError
from hybridtwin.fields import nearest
from hybridtwin.priors import describe

WIDE = 3.0  # sd of the default hyperprior of a typical value, in units of the personal prior's sd on the eta scale
SPREAD = 2.0  # scale of the default half-normal hyperprior of a between-person sd, in the same units


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Random effects that are correlated; made by `block`."""

    parameters: tuple[str, ...]
    covariance: np.ndarray | None
    concentration: float

    def __repr__(self):
        told = "" if self.covariance is None else ", covariance given"
        return f"Block of {', '.join(self.parameters)}{told}"


def block(parameters, covariance=None, *, concentration: float = 2.0) -> Block:
    """Correlated random effects of these parameters.

    **Arguments:** `covariance`: their between-person covariance on the eta scale (k, k), where it is known: it is then fixed,
    and holds for a lone person as a correlated prior, too. Without it standard deviations have the hyperpriors of `Pooling` and
    the correlation matrix an LKJ prior of this `concentration` (1: uniform; Lewandowski 2009, doi:10.1016/j.jmva.2009.04.008).
    """
    parameters = tuple(parameters)
    if len(parameters) < 2 or len(set(parameters)) < len(parameters):
        raise DeclarationError(f"a block needs two or more different parameters, not {parameters}. Leave out what is alone.")
    if covariance is not None:
        covariance = np.asarray(covariance, float)
        k = len(parameters)
        symmetric = covariance.shape == (k, k) and np.allclose(covariance, covariance.T)
        if not symmetric or np.linalg.eigvalsh(covariance).min() <= 0:
            raise DeclarationError(
                f"the covariance of {', '.join(parameters)} must be a symmetric positive definite {k} x {k} matrix. "
                "Give variances and covariances on the eta scale, in the order of the names."
            )
    if not concentration > 0:
        raise DeclarationError(f"concentration={concentration} must be positive. 1 is uniform, 2 leans to no correlation.")
    return Block(parameters, covariance, float(concentration))


@dataclasses.dataclass(frozen=True, eq=False)
class Pooling:
    """What is inferred for the cohort of the personal parameters.

    **Arguments:** `omega`: between-person standard deviations on the eta scale: a mapping parameter -> number (fixed; 0: no
    random effect) or prior; an `ht.block` of correlated ones; or a list of these. Unnamed parameters have a half-normal prior of
    scale twice the sd of their personal prior. `typical`: parameter -> prior of its typical value in natural units, or a number
    (fixed; it then holds for a lone person, too, with the `omega` that is a number). Unnamed ones have a prior of the kind of the
    personal one, around it, three times as wide on the eta scale.

    `FOCEI` takes hyperpriors as starts only (their medians) and maximizes the likelihood; `NUTS` uses them.
    """

    omega: Any = None
    typical: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The correlated random effects."""
        return tuple(part for part in self._parts() if isinstance(part, Block))

    @property
    def spreads(self) -> dict[str, Any]:
        """Parameter -> number or prior, of those that were named."""
        return {name: value for part in self._parts() if isinstance(part, Mapping) for name, value in part.items()}

    def _parts(self):
        if self.omega is None:
            return ()
        return tuple(self.omega) if isinstance(self.omega, list | tuple) else (self.omega,)

    def words(self):
        """A tree of all that was declared, for a fingerprint."""
        blocks = [(b.parameters, None if b.covariance is None else b.covariance.tolist(), b.concentration) for b in self.blocks]
        return {"omega": self.spreads, "blocks": blocks, "typical": dict(self.typical)}

    def __repr__(self):
        parts = [*map(repr, self.blocks), *(f"omega of {n} {v}" for n, v in self.spreads.items())]
        return "Pooling" + (f": {'; '.join(parts)}" if parts else " of every personal parameter")


def pooling_of(given, omega) -> Pooling | None:
    """What a model was told: `pooling`, or `omega` alone."""
    if given is None:
        return None if omega is None else Pooling(omega)
    if not isinstance(given, Pooling):
        raise DeclarationError(f"pooling is {type(given).__name__}. Write pooling=ht.Pooling(omega=...).")
    if omega is not None:
        raise DeclarationError("omega is given twice. Write pooling=ht.Pooling(omega=..., typical=...) and nothing beside it.")
    return given


def personal(system) -> dict[str, dist.Distribution]:
    """Path -> prior of the parameters that are inferred for each person."""
    shared = {path for path, field in system.spec.parameters.items() if field.shared}
    return {path: prior for path, prior in system.priors().items() if path not in shared}


def check(system, pooling: Pooling) -> None:
    """**Raises:** DeclarationError where a declaration does not fit the system."""
    own, named = personal(system), [*pooling.typical, *pooling.spreads]
    named += [name for one in pooling.blocks for name in one.parameters]
    for name in named:
        if name not in own:
            raise DeclarationError(
                f"pooling names {name!r}, which is no personal parameter with a prior in {system.spec.name}. "
                f"{nearest(name, list(own))}"
            )
        if normal_based(own[name]) is None:
            raise DeclarationError(
                f"{name!r} has a prior that is not made from a normal, so it has no eta scale. "
                "Give it ht.lognormal(...), ht.normal(...) or ht.logitnormal(...)."
            )
    blocked = [name for one in pooling.blocks for name in one.parameters]
    if len(set(blocked)) < len(blocked):
        raise DeclarationError(f"a parameter is in two blocks ({', '.join(blocked)}). Put what is correlated in one.")
    for name, value in pooling.spreads.items():
        fixed = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < np.inf
        if not fixed and not isinstance(value, dist.Distribution):
            raise DeclarationError(f"omega of {name!r} is a standard deviation >= 0 or a prior, not {value!r}. Write 0.3, say.")
        if name in blocked and fixed and value == 0:
            raise DeclarationError(f"omega of {name!r} is 0, and it is in a block. Take it out of the block.")


def known(system, pooling: Pooling | None):
    """What is known of a population, as the prior of one person: (system, pooling, ((paths, root), ...)).

    Known are the spreads of blocks whose covariance is given, and what `typical` and `omega` give as numbers of a parameter whose
    typical value is one; without a random effect such a parameter is a number, and there is nothing to pool. A root is the lower
    Cholesky factor of a correlation matrix, as tuples.
    """
    found = []
    for one in pooling.blocks if pooling else ():
        if one.covariance is None:
            continue
        sd = np.sqrt(np.diag(one.covariance))
        priors = system.priors()
        system = system.with_values({p: respread(priors[p], s) for p, s in zip(one.parameters, sd, strict=True)})
        root = np.linalg.cholesky(one.covariance / np.outer(sd, sd))
        found.append((one.parameters, tuple(tuple(float(v) for v in row) for row in root)))
    if pooling is not None:
        leaves = _of_known_typical(system, pooling)
        gone = [path for path, leaf in leaves.items() if not isinstance(leaf, dist.Distribution)]
        system = system.with_values(leaves)
        if gone:
            spreads = {path: v for path, v in pooling.spreads.items() if path not in gone}
            pooling = Pooling([*pooling.blocks, spreads], {p: v for p, v in pooling.typical.items() if p not in gone})
    return system, pooling, tuple(found)


def _of_known_typical(system, pooling: Pooling):
    """Path -> prior (a number without a random effect) of the parameters whose typical value is a number."""
    found = {}
    for path, prior in personal(system).items():
        typical, spread = pooling.typical.get(path), pooling.spreads.get(path)
        if typical is None or isinstance(typical, dist.Distribution):
            continue
        try:
            middle = eta(prior, float(typical))
        except ValueError as error:
            raise DeclarationError(
                f"{typical} is no typical value of {path!r}, which is {describe(prior)}. Give one that its prior can have."
            ) from error
        spread = eta_sd(prior) if spread is None or isinstance(spread, dist.Distribution) else float(spread)
        found[path] = around(prior, middle, spread) if spread else float(typical)
    return found


def default_omega(prior) -> dist.Distribution:
    """Weakly informative prior of a between-person sd."""
    return dist.HalfNormal(SPREAD * eta_sd(prior))


def default_typical(prior) -> dist.Distribution:
    """Weakly informative prior of a typical value, in natural units."""
    return respread(prior, WIDE * eta_sd(prior))


def fingerprint(pooling: Pooling | None) -> str:
    """The declaration as text, equal where it is equal."""
    if pooling is None:
        return ""
    leaves, tree = jax.tree.flatten(pooling.words())
    return repr((str(tree), [repr(leaf) for leaf in leaves]))
