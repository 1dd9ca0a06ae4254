"""What a further reading is worth to a decision: preposterior analysis on the draws of the twin.

For each reading that could be taken, readings y_s are simulated through the sensor from draws of the body, all draws d are
weighed by the density of y_s, w_sd = p(y_s | d) / sum, and the candidate is chosen again:

    worth = mean over s of [ R_w(c now) - R_w(c after y_s) ],   R_w the risk under the weights w_s

With the expected loss as risk and no limits this is the expected value of sample information (Raiffa and Schlaifer 1961), for
the mean of R_w(c now) over s is the risk of today; the draw that y_s came from does not weigh in its own readings. The loss that
full knowledge of the body would save (expected value of perfect information) then bounds it from above. With limits
a reading can also forbid today's choice, which costs, or allow one that was forbidden.
A reading of the model's own CGM shares its calibration and drift with the readings so far, and is taken given these.
Weights of few draws cannot stand for a precise reading: how many draws count is told for each.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.causal import grounds
from hybridtwin.causal.optimize import Decision
from hybridtwin.engine import double
from hybridtwin.errors import DeclarationError, InterventionError, PastHorizon
from hybridtwin.finding import Finding
from hybridtwin.keys import as_key, folded
from hybridtwin.sensors import AbstractSensor, Seen
from hybridtwin.twin import simulate_worlds
from hybridtwin.units import plain, time_factor
from hybridtwin.worlds import Day, thinned, used

_FEW = 15  # draws that must count under a typical reading


@dataclasses.dataclass(frozen=True, eq=False)
class Worth:
    """One further reading: `worth` with Monte Carlo `error`, in units of the loss; how often it changes the choice.

    `keeps`: probability that today's choice still meets every limit after it; `count`: draws that typically count.
    """

    label: str
    worth: float
    error: float
    changes: float
    keeps: float
    count: float
    tries: int  # readings that were simulated for it

    @property
    def changes_text(self) -> str:
        """How probably it changes the choice, told no finer than so many readings allow."""
        return grounds.chance(self.changes, self.tries)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NextReading(Finding):
    """Further readings by what they are worth to a decision, most first. Made by `ht.next_reading`."""

    decision: Decision
    rows: tuple[Worth, ...]
    perfect: float  # worth of full knowledge, by which every limit is kept for sure
    present: str  # today's choice

    @property
    def table(self):
        """One row a reading: worth with its Monte Carlo error, probability that the choice changes, draws that count."""
        import pandas as pd

        frame = pd.DataFrame([dataclasses.asdict(row) for row in self.rows]).drop(columns="tries")
        frame.columns = ["reading", "worth", "error", "p_change", "p_still_meets", "draws_that_count"]
        return frame.assign(perfect=self.perfect)

    @property
    def text(self) -> str:
        """In plain language."""
        found = self.decision
        taken = f", taken on record: {found.accepted}" if found.accepted else ""
        lines = [f"What further readings are worth to this decision ({found.aim}; {found.risk})."]
        lines.append(f"Verdict: {found.verdict.headline}{taken}.")
        here = "the lowest is" if found.order.size else "no candidate meets every limit, nearest is"
        lines.append(f"Without one {here} {self.present}; full knowledge of the body saves {plain(self.perfect)} of loss.")
        for row in self.rows:
            unsure = " (not told from nothing)" if row.worth <= 2 * row.error else ""
            few = f"; only {row.count:.0f} draws count, take it as rough" if row.count < _FEW else ""
            keeps = grounds.chance(row.keeps, row.tries)
            keeps = f"; the present one still meets every limit with P {_equal(keeps)}" if found.limits else ""
            lines.append(
                f"  {row.label}: worth {plain(row.worth)} (Monte Carlo error {plain(row.error, 1)}){unsure}, changes that with "
                f"P {_equal(row.changes_text)}{keeps}{few}."
            )
        lines.append("Worth is for this decision, this model and these candidates alone. Research use; not a medical device.")
        return "\n".join(lines)

    def plot(self):
        """Worth of each reading beside that of full knowledge; a matplotlib figure."""
        from hybridtwin.plots import decisions

        return decisions.readings(self)


def _equal(chance: str) -> str:
    return chance if chance[0] in "<>" else f"= {chance}"


def next_reading(decision: Decision, readings, *, key=None, draws: int = 200) -> NextReading:
    """Which further reading would change a decision most.

    **Arguments:**

    - `readings`: label -> (sensor, time or list of times), or a list of such pairs. The sensor is the name of one of the
      model's, or a sensor with numbers in every leaf, such as `ht.sensors.Gaussian("C", sd=0.5)`; times as in `Twin.do`. They
      must lie before the first difference between the candidates: what is read later cannot inform the choice.
    - `key`: of the simulated readings, by default the twin's own; `draws`: how many of each are simulated.

    **Raises:** DeclarationError, PastHorizon, InterventionError (a reading after the choice).
    """
    asked = _asked(decision, readings)
    world = decision.reference.world
    times = np.unique(np.concatenate([t for _, _, t in asked]))
    names = tuple(dict.fromkeys(_sensor_of(decision, s).of for _, s, _ in asked))
    course = simulate_worlds([world], at=times, names=names)[0]
    good = decision.good & ~course.failed
    losses, chances = decision.losses, np.stack([np.stack(o.chances) for o in decision.options]) if decision.limits else None
    keep = good[decision.good]  # of the decision's draws
    losses = losses[:, keep]
    chances = chances[:, :, keep] if chances is not None else None
    sources = thinned(losses.shape[1], draws)
    rows, root = [], folded(world.key, 83) if key is None else as_key(key)
    for i, (label, sensor, own) in enumerate(asked):
        at = np.searchsorted(times, own)
        logs = _densities(world, sensor, course, own, at, good, sources, folded(root, i))
        rows.append(_worth(label, decision, losses, chances, logs, sources))
    rows.sort(key=lambda row: -row.worth)
    now = _choice(decision, losses, chances, None)
    allowed = losses if chances is None else np.where(chances.max(axis=1) > 0, np.inf, losses)  # whoever knows keeps every limit
    least = np.where(np.isfinite(allowed).any(axis=0), allowed.min(axis=0), losses.min(axis=0))
    perfect = float(np.mean(losses[now]) - np.mean(least))
    return NextReading(decision, tuple(rows), perfect, decision.options[now].label)


def _asked(decision, readings):
    """(label, sensor or its name, times (N,)) of each reading."""
    clock, world = decision.twin.clock, decision.reference.world
    named = isinstance(readings, Mapping)
    pairs: list[tuple[Any, Any]] = list(readings.items()) if named else [(None, one) for one in readings]
    onsets = [w.onset for w in (o.world.world() for o in decision.options) if w.onset is not None]
    first, found = min(onsets, default=np.inf), []
    for label, pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DeclarationError(f"{pair!r} is no reading. Write (sensor, time), as in (\"cgm\", \"11:30\").")
        sensor, when = pair
        _sensor_of(decision, sensor)
        moments = list(when) if isinstance(when, list | tuple | np.ndarray) else [when]
        times = np.sort(np.array([clock.asked(moment) for moment in moments], float))
        said = ", ".join(clock.label(t) for t in times)
        if times[0] < world.start or times[-1] > world.stop:
            raise PastHorizon(f"a reading at {said} lies outside the day of this decision. Choose times inside it.")
        if times[-1] > first:
            raise InterventionError(
                f"a reading at {said} comes after the candidates begin to differ ({clock.label(first)}): it cannot inform the "
                "choice. Take an earlier time, or decide from a later day."
            )
        name = sensor if isinstance(sensor, str) else f"{type(sensor).__name__} of {sensor.of}"
        found.append((str(label) if named else f"{name} at {said}", sensor, times))
    if not found:
        raise DeclarationError('which readings? Give a list, as in [("cgm", "11:30"), ("cgm", "11:45")].')
    return found


def _sensor_of(decision, sensor) -> AbstractSensor:
    """The sensor itself. **Raises:** DeclarationError."""
    model = decision.twin.fits[0].model
    if isinstance(sensor, str):
        if sensor not in model.sensors:
            raise DeclarationError(f"the model has no sensor {sensor!r}. It has {', '.join(model.sensors)}.")
        return model.sensors[sensor]
    if not isinstance(sensor, AbstractSensor):
        raise DeclarationError(f"{sensor!r} is no sensor. Name one of the model's, or write ht.sensors.Gaussian(\"C\", sd=0.5).")
    if sensor.priors():
        raise DeclarationError(f"the sensor of {sensor.of} has priors: which error? Give numbers, as in sd=0.5.")
    return sensor


def _densities(world, sensor, course, times, at, good, sources, key) -> np.ndarray:
    """(S, D) log densities of readings simulated from the draws `sources` under every good draw, structure by structure."""
    bound, spec = world.days[0].bound, world.fits[0].model.spec
    n, minutes = len(times), time_factor(spec.time, "min")
    blank = np.zeros(n, np.int32)
    rows = Seen(np.zeros(n), times * minutes, np.ones(n, bool), blank, blank, bound.since(times) * minutes)
    past = _past(world, sensor)
    start, parts = 0, []
    for i, fit in enumerate(world.fits):
        index = used(fit, world.days[i], world.draws_of(i))
        count = len(index)
        own = good[start : start + count]
        one = fit.model.sensors[sensor] if isinstance(sensor, str) else sensor
        mean = course[one.of][start : start + count][own][:, at]
        sites = fit.kernel.sites_of(sensor) if isinstance(sensor, str) else ()
        values = {s: np.asarray(fit.values[s])[index][own] for s in sites}
        part = _Part(mean, values, _made(fit, sensor))
        if past is not None:
            before = past.mean[start : start + count][own]
            part = part._replace(given=_given_the_past(part, past._replace(mean=before), times * minutes))
        parts.append(part)
        start += count
    with double():
        fresh = _simulated(parts, sources, rows, key)
        logs = []
        for mean, values, made, given in parts:
            if given is not None:
                logs.append(jax.jit(jax.vmap(jax.vmap(_normal, (None, 0, 0)), (0, None, None)))(fresh, *given))
                continue

            def density(y, m, v, made=made):
                return made(v).terms(m, rows._replace(value=y)).loglik.sum()

            logs.append(jax.jit(jax.vmap(jax.vmap(density, (None, 0, 0)), (0, None, None)))(fresh, mean, values))
    return np.concatenate([np.asarray(a) for a in logs], axis=1) / world.temper


class _Part(NamedTuple):
    """The further readings under one structure: modelled values (d, N), sites of the sensor, the sensor of a draw, and where
    earlier readings say something about its error, mean (d, N) and Cholesky factor (d, N, N) given these.
    """

    mean: np.ndarray
    values: dict[str, np.ndarray]
    made: Any
    given: tuple[Any, Any] | None = None


class _Past(NamedTuple):
    """Readings of a sensor so far: time (P,) in minutes, value (P,), session (P,), and the modelled values (draws, P)."""

    time: np.ndarray
    value: np.ndarray
    session: np.ndarray
    mean: np.ndarray


def _past(world, sensor) -> _Past | None:
    """The readings that share their slow errors (calibration, drift) with a further one of the model's own sensor.

    None for a sensor without such errors, one of the user's own, and on another day, which another sensor may read.
    """
    fit, day = world.fits[0], world.days[0]
    goes_on = day.lived or day.prior_start is not None  # a day that begins where the record ends
    if not isinstance(sensor, str) or not hasattr(fit.model.sensors[sensor], "covariance") or not goes_on:
        return None
    problem, minutes = fit.problem, time_factor(fit.model.spec.time, "min")
    read = problem.bound.readings.get(sensor)
    rows = [] if read is None else [k for k in problem.used[sensor] if read.censored[k] == 0]
    if not rows:
        return None
    lived = tuple(Day(f.problem.bound, f.problem.lived) for f in world.fits)
    times, of = np.asarray(read.time, float)[rows], fit.model.sensors[sensor].of
    moments, back = np.unique(times, return_inverse=True)
    course = simulate_worlds([dataclasses.replace(world, days=lived, dos=(), rules=())], at=moments, names=(of,))[0]
    return _Past(times * minutes, np.asarray(read.value, float)[rows], np.asarray(read.session)[rows], course[of][:, back])


def _given_the_past(part, past, minutes):
    """Mean (d, N) and Cholesky factor (d, N, N) of further readings at `minutes` (N,), given those so far, draw by draw.

    All are Gaussian given the modelled values, with the sensor's own covariance; of the present session, until another begins.
    """
    last = np.clip(np.searchsorted(past.time, minutes, "right") - 1, 0, None)
    n, count = len(past.time), len(minutes)
    time, session = np.concatenate([past.time, minutes]), np.concatenate([past.session, past.session[last]])
    whole = Seen(np.zeros(n + count), time, np.ones(n + count, bool), np.zeros(n + count, np.int32), session)

    def one(before, mean, values):
        spread = part.made(values).covariance(jnp.concatenate([before, mean]), whole)
        known = jnp.linalg.cholesky(spread[:n, :n])
        across = jax.scipy.linalg.solve_triangular(known, spread[:n, n:], lower=True)
        miss = jax.scipy.linalg.solve_triangular(known, past.value - before, lower=True)
        return mean + across.T @ miss, jnp.linalg.cholesky(spread[n:, n:] - across.T @ across)

    with double():
        return jax.jit(jax.vmap(one))(past.mean, part.mean, part.values)


def _normal(y, mean, factor):
    """Log density of y (N,) under a Gaussian with this Cholesky factor."""
    z = jax.scipy.linalg.solve_triangular(factor, y - mean, lower=True)
    return -0.5 * jnp.sum(z**2) - jnp.sum(jnp.log(jnp.diag(factor))) - 0.5 * y.shape[0] * jnp.log(2 * jnp.pi)


def _made(fit, sensor):
    """A function from the sites of a draw to the sensor."""
    return (lambda v: fit.kernel.sensor_of(sensor, v)) if isinstance(sensor, str) else lambda v: sensor


def _simulated(parts, sources, rows, key) -> np.ndarray:
    """(S, N) one set of readings from each source draw, the draws counted through all structures."""
    found, start = [], 0
    for i, (mean, values, made, given) in enumerate(parts):
        mine = sources[(sources >= start) & (sources < start + len(mean))] - start
        if len(mine):
            keys = jax.random.split(folded(key, i), len(mine))
            if given is not None:
                z = np.stack([jax.random.normal(k, mean.shape[1:], mean.dtype) for k in keys])
                found.append(np.asarray(given[0][mine] + jnp.einsum("sij,sj->si", given[1][mine], z)))
                start += len(mean)
                continue
            draw = jax.vmap(lambda k, m, v, made=made: made(v).sample(k, m, rows))
            found.append(np.asarray(jax.jit(draw)(keys, mean[mine], {s: v[mine] for s, v in values.items()})))
        start += len(mean)
    return np.concatenate(found)


def weights_of(logs, sources) -> np.ndarray:
    """(S, D) weights that sum to one; the draw that a reading came from counts nothing in it."""
    logs = np.where(np.isfinite(logs), logs, -np.inf)
    logs = np.array(logs)
    logs[np.arange(len(sources)), sources] = -np.inf
    top = logs.max(axis=1, keepdims=True)
    weights = np.exp(logs - np.where(np.isfinite(top), top, 0.0))
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)


def _choice(decision, losses, chances, weights) -> int:
    """The candidate of the lowest risk among those that meet every limit; where none does, the one nearest to it."""
    risks = decision.risk.of_all(losses, weights)
    if chances is None:
        return int(np.argmin(risks))
    happens = chances.mean(axis=2) if weights is None else chances @ weights
    worst = np.max(happens / np.array([limit.at_most for limit in decision.limits]), axis=1)
    return int(np.argmin(np.where(worst <= 1.0, risks, np.inf))) if (worst <= 1.0).any() else int(np.argmin(worst))


def _worth(label, decision, losses, chances, logs, sources) -> Worth:
    now, weights = _choice(decision, losses, chances, None), weights_of(logs, sources)
    gains, changed, keeps = [], [], []
    for w in weights:
        after = _choice(decision, losses, chances, w)
        gains.append(decision.risk.of(losses[now], w) - decision.risk.of(losses[after], w))
        changed.append(after != now)
        met = True if chances is None else np.all(chances[now] @ w <= np.array([limit.at_most for limit in decision.limits]))
        keeps.append(bool(met))
    count = float(np.median(1.0 / np.sum(weights**2, axis=1)))
    error = float(np.std(gains) / np.sqrt(len(gains)))
    return Worth(label, float(np.mean(gains)), error, float(np.mean(changed)), float(np.mean(keeps)), count, len(keeps))


