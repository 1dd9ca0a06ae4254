r"""Do readings foretell the doses that come after them, beyond what the model explains of them?

A dose cannot act on what was read before it, so it is a negative control for these readings (Lipsitch 2010,
doi:10.1097/EDE.0b013e3181d61eeb): where the two hang together all the same, something lies behind both. Of a reading y_i at the
modelled value m_i let e_i be the twin's expectation of its error, (y_i - m_i) / sd, over the draws, and D_i what is given between
it and the next reading. If errors of readings had no part in what was given, then under the model

    E[e_i D_i] = E[D_i E[error_i | record]] = E[D_i error_i] = 0

whatever else D_i depends on: the clock, earlier doses, the state of the body by a policy of the model. A state that care saw and
the model lacks is part of the error, and breaks it.

**What it is held against.** Whether something is given: D_i in {0, 1}, against all circular shifts of the errors along the
record, which keep the rhythm of the doses and the memory of the errors. How much: amounts against the errors in front of
them, permuted among the doses. Of several such tests the smallest p counts, times their number (Bonferroni).

**What it cannot tell.** Care that looks at the readings themselves follows their errors, too, and does no harm by it. Where it
looks at the last one alone, the reading before that does not lie on the same side, so where the test fails this is asked
besides; it is much less sharp, and says nothing where it finds nothing. A hidden state that acts on readings only after care saw
it, or on the outcome past the readings, leaves no trace in front of a dose at all.
"""

import bisect
import dataclasses

import numpy as np

from hybridtwin.engine import double
from hybridtwin.inference.readings import at_readings
from hybridtwin.policies import UNRECORDED
from hybridtwin.units import time_factor

LEVEL = 0.05  # how often doses that nothing foretells are said to be foretold
_READINGS, _DOSES, _AMOUNTS = 20, 4, 6  # fewest readings, doses among them, and doses of differing amounts, that can tell
_TRIALS = 1999  # permutations of the amounts


@dataclasses.dataclass(frozen=True)
class Pair:
    """What one sensor read in front of the doses of one input: errors (N,) of its readings, the amount given after each."""

    dose: str
    sensor: str
    errors: np.ndarray
    given: np.ndarray

    @property
    def gap(self) -> float:
        """How far readings in front of a dose lie above the others, in their own errors."""
        followed = self.given > 0
        return float(self.errors[followed].mean() - self.errors[~followed].mean())


@dataclasses.dataclass(frozen=True)
class Foretold:
    """`p`: the smallest of all `tests`, times their number (NaN where none could be done), of which `pair`, about "whether" or
    "how much"; `earlier`: of the reading before the last, where `p` is small.
    """

    p: float
    pair: Pair | None = None
    about: str = ""
    earlier: float = float("nan")
    tests: int = 0

    @property
    def fine(self) -> bool:
        """Is nothing foretold, or nothing asked?"""
        return not self.p < LEVEL


def whether(errors: np.ndarray, given: np.ndarray, side: float = 0.0) -> float:
    """P of a link between errors (N,) and whether something is given after them, among circular shifts of the one. `side`: of a
    positive link (1.0), a negative one (-1.0) or either.
    """
    e, d = errors - errors.mean(), (given > 0) - np.mean(given > 0)
    link = np.fft.irfft(np.fft.rfft(e) * np.conj(np.fft.rfft(d)), len(e))
    link = side * link if side else np.abs(link)
    return float(np.mean(link >= link[0] - 1e-9 * np.abs(link).max()))


def how_much(errors: np.ndarray, given: np.ndarray, rng: np.random.Generator) -> float:
    """P of a link between the amounts given and the errors in front of them, among permutations of the amounts."""
    e, amounts = errors[given > 0], given[given > 0]
    e, amounts = e - e.mean(), amounts - amounts.mean()
    link = np.abs(rng.permuted(np.tile(amounts, (_TRIALS, 1)), axis=1) @ e)
    return float((1 + np.sum(link >= abs(amounts @ e) * (1 - 1e-9))) / (_TRIALS + 1))


def judged(pairs: list[Pair], rng: np.random.Generator) -> Foretold:
    """The tests that these pairs allow, as one."""
    found = []
    for pair in pairs:
        count = int(np.sum(pair.given > 0))
        if len(pair.errors) >= _READINGS and _DOSES <= count <= len(pair.errors) - _DOSES:
            found.append((whether(pair.errors, pair.given), pair, "whether"))
        if count >= _AMOUNTS and np.ptp(pair.given[pair.given > 0]) > 1e-9 * pair.given.max():
            found.append((how_much(pair.errors, pair.given, rng), pair, "how much"))
    if not found:
        return Foretold(float("nan"))
    p, pair, about = min(found, key=lambda one: one[0])
    p, earlier = min(1.0, p * len(found)), float("nan")
    if p < LEVEL:
        before, given = pair.errors[:-1], pair.given[1:]
        # doses wait for each other, so where care looks at the last reading the one before it lies on the other side
        earlier = whether(before, given, np.sign(pair.gap)) if about == "whether" else how_much(before, given, rng)
    return Foretold(p, pair, about, earlier, len(found))


def pairs_of(twin, doses) -> list[Pair]:
    """Errors of the twin's readings and what was given after each, of every sensor and each of `doses`. Readings without an error
    (censored ones, counts) are left out.
    """
    found, errors, bound = [], [], twin.fits[0].problem.bound
    for fit in twin.fits:
        with double():
            _, residuals, _ = at_readings(fit.kernel, fit.z.reshape(-1, fit.z.shape[-1]), fit.problem.data)
        errors.append(residuals)
    for sensor, field in twin.fits[0].model.sensors.items():
        if field.decides or not all(sensor in r for r in errors):
            continue
        seen, rows = bound.readings[sensor], _rows(twin.fits[0], sensor)
        mean = np.mean([_mean(r[sensor])[: len(rows)] for r in errors], axis=0)
        plain = np.isfinite(mean) & (mean != 0)  # 0: a row to which the sensor gives no error (a count)
        at = [*zip(seen.time[rows[plain]], seen.order[rows[plain]], strict=True)]
        found += [Pair(dose, sensor, mean[plain], _after(at, bound.inputs[dose].doses)) for dose in doses]
    return found


def _rows(fit, sensor) -> np.ndarray:
    """Places in the record of the readings that a fit was made of: a sensor may leave some out (`CGM(every=)`)."""
    bound, kept = fit.problem.bound, fit.problem.data.seen[sensor]
    minutes = bound.readings[sensor].time * time_factor(fit.model.spec.time, "min")
    used = np.asarray(kept.time)[np.asarray(kept.mask)]
    return np.arange(len(minutes)) if len(used) == len(minutes) else np.searchsorted(minutes, used - 1e-6)


def _mean(residuals) -> np.ndarray:
    """Mean over the draws that could be solved (n, N) -> (N,); NaN where a reading has no error."""
    known = np.isfinite(residuals)
    with np.errstate(invalid="ignore"):
        return np.where(known, residuals, 0.0).sum(axis=0) / known.sum(axis=0)


def _after(at, doses) -> np.ndarray:
    """What of `doses` is given after each reading and before the next; `at`: (time, order) of the readings, sorted."""
    given = np.zeros(len(at))
    for dose in doses:
        for t in dose.time + float(dose.ii or 0.0) * np.arange(dose.addl + 1):
            last = bisect.bisect_right(at, (t, dose.order)) - 1
            if last >= 0 and dose.product != UNRECORDED:
                given[last] += float(dose.amount)
    return given


def told(found: Foretold) -> str:
    """What was found, in words."""
    if found.pair is None:
        return (
            f"not asked: it needs {_READINGS} readings with {_DOSES} doses between them, "
            f"or {_AMOUNTS} doses of differing amounts."
        )
    pair, p = found.pair, f"p {found.p:.3f}" if found.p >= 0.001 else "p < 0.001"
    if found.fine:
        return f"what readings of {pair.sensor} hold beyond the model does not foretell {pair.dose} ({p})."
    side = f"readings of {pair.sensor} in front of {pair.dose} lie {abs(pair.gap):.2g} of their error "
    side += "above" if pair.gap > 0 else "below"
    how = f"{side} the others, beside the model ({p})" if found.about == "whether" else (
        f"what readings of {pair.sensor} hold beyond the model foretells how much {pair.dose} follows ({p})")  # fmt: skip
    not_last = found.earlier < LEVEL
    harmless = (
        "The reading before the last foretells it, too, so care did not decide by the last one alone"
        if not_last
        else "Care that decided by these very readings leaves the same trace, and does no harm: only who knows can tell"
    )
    return (
        f"{how}. What care saw and the model lacks may lie behind both, and then the answer takes it for what {pair.dose} does. "
        f"{harmless}. So may a misfit at the times of doses: see what the twin's verdict says of the fit."
    )
