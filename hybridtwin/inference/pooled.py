"""A pooled model as functions of numbers: population coordinates, random effects, and what each person's readings say.

`Pool` is the static part: population coordinates u (p,) and, for each person, standard normal effects b (d,) give the
coordinates w of that person's parameters, on which the same `Kernel` as in `personalize` gives the likelihood. Everything
below is written for one person; people are lanes of one compiled program over records padded to one shape.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import biject_to

from hybridtwin.coordinates import from_coordinate, log_prior, natural, normal_based, on_eta_scale, to_coordinate
from hybridtwin.errors import DeclarationError
from hybridtwin.kernel import Data, Kernel, padded_to
from hybridtwin.model import Model, Problem, bind
from hybridtwin.pooling import Pooling, default_omega, default_typical, personal
from hybridtwin.priors import median
from hybridtwin.simulate.run import stack

LOG_2PI = float(np.log(2 * np.pi))


@dataclasses.dataclass(frozen=True)
class Site:
    """One block of population coordinates. `kind`: typical, omega, correlation, shared, sensor or spread."""

    name: str
    prior: Any
    kind: str
    size: int = 1


class Group(NamedTuple):
    """People of one kernel: their records padded to one shape and stacked."""

    kernel: Kernel
    problems: tuple[Problem, ...]
    data: Data  # leading axis P
    rows: np.ndarray  # (P,) places of the people in the cohort


@dataclasses.dataclass(frozen=True)
class Pool:
    """The population part of one model. Value-equal for models of equal key, so that compiled programs are shared."""

    model: Model = dataclasses.field(compare=False)
    key: str = ""

    def __post_init__(self):
        object.__setattr__(self, "key", self.model.key)
        for path, prior in self.personal.items():
            if normal_based(prior) is None:
                raise DeclarationError(
                    f"pooling needs an eta scale, and the prior of {path!r} is not made from a normal. "
                    f"Give it ht.lognormal(...), ht.normal(...) or ht.logitnormal(...), or a number."
                )

    # ------------------------------------------------------------------ what there is

    @property
    def pooling(self) -> Pooling:
        """What was declared, or the default."""
        return self.model.pooling or Pooling()

    @functools.cached_property
    def common(self):
        """Sites of the model that are one number for the cohort."""
        sites = self.model.sites(dict.fromkeys((g for _, g in self.model.varying), 1), 0, 0)
        return {site.name: site for site in sites if site.shared}

    @functools.cached_property
    def personal(self) -> dict[str, Any]:
        """Path -> prior of the parameters with a typical value."""
        forgotten = self.model.spec.forgotten if self.model.start == "steady" else frozenset()
        return {path: prior for path, prior in personal(self.model.system).items() if path not in forgotten}

    @functools.cached_property
    def omegas(self) -> dict[str, Any]:
        """Path -> number or prior of the between-person sd, of those that have a random effect."""
        given = self.pooling.spreads
        for one in self.pooling.blocks:
            if one.covariance is not None:
                given |= dict(zip(one.parameters, map(float, np.sqrt(np.diag(one.covariance))), strict=True))
        found = {path: given.get(path, default_omega(prior)) for path, prior in self.personal.items()}
        return {path: value for path, value in found.items() if isinstance(value, dist.Distribution) or value > 0}

    @functools.cached_property
    def sites(self) -> tuple[Site, ...]:
        """The population's unknowns."""
        found = []
        for path, prior in self.personal.items():
            typical = self.pooling.typical.get(path, default_typical(prior))
            if isinstance(typical, dist.Distribution):
                found.append(Site(path, typical, "typical"))
        found += [Site(f"omega.{p}", v, "omega") for p, v in self.omegas.items() if isinstance(v, dist.Distribution)]
        for i, one in enumerate(self.pooling.blocks):
            if one.covariance is None:
                k = len(one.parameters)
                found.append(Site(f"block.{i}", (k, one.concentration), "correlation", k * (k - 1) // 2))
        kinds = {"system": "shared", "sensor": "sensor", "spread": "spread"}
        found += [Site(name, site.prior, kinds[site.kind]) for name, site in self.common.items()]
        return tuple(found)

    @property
    def size(self) -> int:
        """Number p of population coordinates."""
        return sum(site.size for site in self.sites)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Names of `values`, in their order."""
        found = [site.name for site in self.sites if site.kind != "correlation"]
        return (*found, *(f"corr.{a}.{b}" for a, b in self.pairs))

    @functools.cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Parameters whose correlation is inferred, two by two."""
        blocks = [one.parameters for one in self.pooling.blocks if one.covariance is None]
        return tuple((b, a) for names in blocks for i, a in enumerate(names) for b in names[:i])

    def place(self, name) -> int:
        """Where a site's coordinates begin."""
        at = 0
        for site in self.sites:
            if site.name == name:
                return at
            at += site.size
        raise KeyError(name)

    @functools.cached_property
    def start(self) -> np.ndarray:
        """Coordinates (p,) of the medians of all hyperpriors; correlations of 0."""
        found = []
        for site in self.sites:
            if site.kind == "correlation":
                found.append(np.zeros(site.size))
            else:
                found.append(np.atleast_1d(np.asarray(to_coordinate(site.prior, median(site.prior)), float)))
        return np.concatenate(found) if found else np.zeros(0)

    # ------------------------------------------------------------------ functions of u

    def split(self, u):
        """Coordinates by site."""
        found, at = {}, 0
        for site in self.sites:
            found[site.name] = u[at] if site.size == 1 and site.kind != "correlation" else u[at : at + site.size]
            at += site.size
        return found

    def log_prior(self, u):
        """Log density of the hyperpriors at u (p,)."""
        total, parts = jnp.zeros(()), self.split(u)
        for site in self.sites:
            if site.kind == "correlation":
                k, concentration = site.prior
                lkj, transform = dist.LKJCholesky(k, concentration), biject_to(dist.constraints.corr_cholesky)
                root = transform(parts[site.name])
                total += lkj.log_prob(root) + transform.log_abs_det_jacobian(parts[site.name], root)
            else:
                total += log_prior(site.prior, parts[site.name])
        return total

    def typical(self, u):
        """Typical values on the eta scale: path -> number."""
        parts, found = self.split(u), {}
        for path, prior in self.personal.items():
            given = self.pooling.typical.get(path, default_typical(prior))
            value = from_coordinate(given, parts[path]) if isinstance(given, dist.Distribution) else given
            found[path] = on_eta_scale(prior, value)
        return found

    def spreads(self, u):
        """Between-person sds (m,) of the parameters with a random effect, in their order."""
        parts, given = self.split(u), self.omegas.items()
        each = [from_coordinate(v, parts[f"omega.{p}"]) if isinstance(v, dist.Distribution) else v for p, v in given]
        return jnp.stack([jnp.asarray(v, float) for v in each]) if each else jnp.zeros(0)

    def correlation_root(self, u):
        """Root R (m, m) of the correlation matrix of the random effects, R R' = correlation."""
        parts, names = self.split(u), list(self.omegas)
        root = jnp.eye(len(names))
        for i, one in enumerate(self.pooling.blocks):
            at = np.array([names.index(p) for p in one.parameters])
            if one.covariance is None:
                small = biject_to(dist.constraints.corr_cholesky)(parts[f"block.{i}"])
            else:
                sd = np.sqrt(np.diag(one.covariance))
                small = jnp.asarray(np.linalg.cholesky(one.covariance / np.outer(sd, sd)))
            root = root.at[at[:, None], at[None, :]].set(small)
        return root

    def root(self, u):
        """L (m, m) with L L' = Omega."""
        return self.spreads(u)[:, None] * self.correlation_root(u)

    def values(self, u) -> dict[str, Any]:
        """The population in natural units: typical values, `omega.X` (sd on the eta scale), `corr.X.Y`, shared parameters."""
        parts, typical, found = self.split(u), self.typical(u), {}
        for site in self.sites:
            if site.kind == "typical":
                found[site.name] = natural(self.personal[site.name], typical[site.name])
            elif site.kind != "correlation":
                found[site.name] = from_coordinate(site.prior, parts[site.name])
        names, root = list(self.omegas), self.correlation_root(u)
        matrix = root @ root.T
        return found | {f"corr.{a}.{b}": matrix[names.index(a), names.index(b)] for a, b in self.pairs}

    # ------------------------------------------------------------------ one person

    def effects(self, kernel: Kernel) -> int:
        """Number d of one person's effects: random effects, deviations by occasion, uncertain events."""
        return len(self.omegas) + sum(s.size for s in kernel.sites if s.kind in ("deviation", "amount", "time"))

    def person(self, kernel: Kernel, u, b):
        """Coordinates w (kernel.size,) of one person: eta scale for personal parameters, the site's own for the others."""
        m = len(self.omegas)
        eta = dict(zip(self.omegas, self.root(u) @ b[:m], strict=True)) if m else {}
        typical, parts, at, found = self.typical(u), self.split(u), m, []
        for site in kernel.sites:
            if site.name in typical:
                found.append(jnp.atleast_1d(typical[site.name] + eta.get(site.name, 0.0)))
            elif site.shared:
                found.append(jnp.atleast_1d(parts[site.name]))
            else:
                found.append(b[at : at + site.size])
                at += site.size
        return jnp.concatenate(found)

    def constrain(self, kernel: Kernel, w) -> dict[str, Any]:
        """Values of one person's sites at coordinates w."""
        parts = kernel.split(w)
        return {
            site.name: natural(site.prior, parts[site.name])
            if site.name in self.personal
            else from_coordinate(site.prior, parts[site.name])
            for site in kernel.sites
        }

    def rows(self, kernel: Kernel, w, data: Data):
        """What one person's readings say, split as Gauss-Newton needs it: (residual, log sd, rest), each (N,).

        Log likelihood = sum(-residual**2 / 2 - log sd + rest) - log(2 pi) / 2 for each Gaussian row.
        """
        parts = []
        for name, t in kernel.terms(self.constrain(kernel, w), data).items():
            constant = jnp.where(kernel.gaussian(name, data), 0.5 * LOG_2PI, 0.0)
            rest = t.loglik + 0.5 * t.residual**2 + t.log_sd + constant
            parts.append((t.residual, t.log_sd, rest))
        return tuple(jnp.concatenate(column) for column in zip(*parts, strict=True))


def gather(model: Model, people) -> tuple[Pool, list[Group]]:
    """Bind a cohort; people whose records can have the same things happen form a group of one shape."""
    pool, alike = Pool(model), {}
    problems = [bind(model, person, pooled=True) for person in people]
    tails = tuple(sorted({name for problem in problems for name in problem.kernel.tails}))  # or those with some are a group apart
    kernels = [dataclasses.replace(problem.kernel, tails=tails) for problem in problems]
    problems = [dataclasses.replace(problem, kernel=kernel) for problem, kernel in zip(problems, kernels, strict=True)]
    for i, problem in enumerate(problems):
        alike.setdefault(problem.kernel, []).append(i)
    groups = []
    for kernel, rows in alike.items():
        datas = [problems[i].data for i in rows]
        nodes, reads = (max(len(a) for a in column) for column in ([d.mesh.t for d in datas], [d.mesh.read for d in datas]))
        moving = max(len(d.mesh.moving.time) for d in datas)
        readings = {n: max((len(d.seen[n].value) for d in datas if n in d.seen), default=0) for n in model.sensors}
        readings = {n: count for n, count in readings.items() if count}
        own = [padded_to(d, nodes, reads, moving, readings) for d in datas]
        full = tuple(dataclasses.replace(problems[i], data=d) for i, d in zip(rows, own, strict=True))
        groups.append(Group(kernel, full, stack(own), np.array(rows)))
    return pool, groups
