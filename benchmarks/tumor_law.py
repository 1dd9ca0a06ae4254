"""The tumor simulator of the causal benchmarks, what it asks, and what the exact model answers. NumPy alone.

The law is Geng 2017 (doi:10.1038/s41598-017-13646-z) from day to day, with the population, the confounded policy and the
test questions of Lim 2018, Bica 2020 and Melnychuk 2022 (Causal Transformer), written anew from their equations:

    V(t+1) = V(t) (1 + rho ln(K / V(t)) - beta_c C(t) - (alpha d(t) + beta d(t)^2) + e(t+1)),  e ~ N(0, .01^2)
    C(t) = C(t-1) / 2 + 5 chemo(t)      d(t) = 2 radio(t)      beta = alpha / 10

It is linear in (rho, beta_c, alpha) given the volumes, so the posterior of a patient is a Gaussian cut at zero: the
`bayes_optimal` row, exact but for a grid of one dimension. The `oracle` row knows the parameters.

*Both policies.* The published test generators look up the volumes that the policy sees in the row of the *output* with the
patient's number, which belongs to another patient and is padded with zeros ("coded"). "fixed" gives each patient her own.
"""

import dataclasses

import numpy as np
from scipy.special import ndtr, ndtri

DAYS, AHEAD, WINDOW = 60, 5, 15
CAPACITY, DEAD = np.pi / 6 * 30.0**3, np.pi / 6 * 13.0**3  # cm^3
CELLS = 5.8e8  # a cm^3
NOISE = 0.01
ALPHA, RHO, CORRELATION = (0.0398, 0.168), (7e-5, 7.23e-3), 0.87  # mean and sd of the pair, before it is cut at zero
CHEMO, KINDS = (0.028, 0.0007), {1: (0.1 * 0.0398, 0.0), 2: (0.0, 0.0), 3: (0.0, 0.1 * 0.028)}  # what a type adds
STAGES = ((1432, 1.72, 4.70, 0.3, 5.0), (128, 1.96, 1.63, 0.3, 13.0), (1306, 1.91, 9.40, 0.3, 13.0),
          (7248, 2.76, 6.87, 0.3, 13.0), (12840, 3.86, 8.82, 0.3, 13.0))  # fmt: skip
ARMS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)  # chemo, radio
# one dose on one of five days: five of chemo, then five of radio (10, day, what)
PLANS = np.concatenate([np.stack([np.eye(5), np.zeros((5, 5))], -1), np.stack([np.zeros((5, 5)), np.eye(5)], -1)])


@dataclasses.dataclass(frozen=True)
class Patients:
    """n of them: `kind` 1, 2 or 3 is known to the doctor, the rest is not, but for the first volume (cm^3)."""

    alpha: np.ndarray
    rho: np.ndarray
    beta_c: np.ndarray
    volume: np.ndarray
    kind: np.ndarray

    @classmethod
    def drawn(cls, rng, n) -> "Patients":
        """From the simulator's population."""
        counts = np.array([s[0] for s in STAGES], float)
        stage = rng.choice(len(STAGES), n, p=counts / counts.sum())
        _, mu, sd, low, high = np.array(STAGES)[stage].T
        low, high = ndtr((np.log(low) - mu) / sd), ndtr((np.log(high) - mu) / sd)
        diameter = np.exp(mu + sd * ndtri(low + (high - low) * rng.random(n)))
        pair, covariance = np.zeros((0, 2)), CORRELATION * ALPHA[1] * RHO[1]
        while len(pair) < n:
            more = rng.multivariate_normal([ALPHA[0], RHO[0]], [[ALPHA[1] ** 2, covariance], [covariance, RHO[1] ** 2]], n)
            pair = np.concatenate([pair, more[(more > 0).all(axis=1)]])[:n]
        kind = rng.integers(1, 4, n)
        more = np.array([KINDS[k] for k in kind])
        beta_c = CHEMO[0] + CHEMO[1] * rng.standard_normal(n)  # zero is forty standard deviations away
        return cls(pair[:, 0] + more[:, 0], pair[:, 1], beta_c + more[:, 1], np.pi / 6 * diameter**3, kind)

    def of(self, rows) -> "Patients":
        """Some of them."""
        return Patients(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class Chance:
    """What chance does to n patients: noise of the day that ends, draws of recovery and of both treatments."""

    noise: np.ndarray  # (n, DAYS + AHEAD + 1)
    recovery: np.ndarray  # (n, DAYS)
    chemo: np.ndarray
    radio: np.ndarray

    @classmethod
    def drawn(cls, rng, n) -> "Chance":
        return cls(NOISE * rng.standard_normal((n, DAYS + AHEAD + 1)), *rng.random((3, n, DAYS)))

    def of(self, rows) -> "Chance":
        return Chance(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class Lives:
    """What was seen of n patients: questions are asked on days 0 to `length` - 1, and volumes are known to day `length`."""

    volume: np.ndarray  # (n, DAYS)
    chemo: np.ndarray  # (n, DAYS) was it given?
    radio: np.ndarray
    drug: np.ndarray  # (n, DAYS) C
    length: np.ndarray  # (n,)


def grown(volume, drug, dose, who, noise, inside=0.0):
    """Volume a day later. `who` has rho, beta_c and alpha; `dose` in Gy; all of one shape or broadcast."""
    with np.errstate(invalid="ignore", divide="ignore"):  # of nothing, where a life has ended, and of less than nothing
        growth = who.rho * np.log(CAPACITY / (volume + inside) + inside)
        return volume * (1 + growth - who.beta_c * drug - who.alpha * dose * (1 + dose / 10) + noise)


def lived(patients: Patients, chance: Chance, gamma: float, shown=None, blind=False) -> Lives:
    """Lives under the policy. `shown` (n, DAYS): the volumes that it sees, the patient's own if left out; `blind`: no day 0."""
    n = len(patients.rho)
    volume, chemo, radio, drug = (np.zeros((n, DAYS)) for _ in range(4))
    volume[:, 0], on, length = patients.volume, np.ones(n, bool), np.full(n, DAYS - 1)
    for t in range(DAYS - 1):
        seen = (volume if shown is None else shown)[:, max(t - WINDOW, 0) : t + 1]
        diameter = np.cbrt(np.maximum(seen, 0.0) * 6 / np.pi).mean(axis=1) * (not (blind and t == 0))
        p = 1 / (1 + np.exp(-gamma / 13 * (diameter - 6.5)))
        radio[:, t], chemo[:, t] = chance.radio[:, t] < p, chance.chemo[:, t] < p
        drug[:, t] = (drug[:, t - 1] / 2 if t else 0.0) + 5 * chemo[:, t]
        after = np.clip(grown(volume[:, t], drug[:, t], 2 * radio[:, t], patients, chance.noise[:, t + 1]), 0, DEAD)
        volume[:, t + 1] = np.where(on, after, 0.0)
        ends = on & ((after >= DEAD) | (chance.recovery[:, t] <= np.exp(-CELLS * after)))
        length[ends] = t + 1
        on &= ~ends
    return Lives(volume, chemo, radio, drug, length)


def coded(patients: Patients, chance: Chance, gamma: float, asked) -> Lives:
    """Lives under the policy as it is coded: patient i is treated by what stands in row i of the test set, which is made of
    the rows of earlier patients. `asked` (Lives, Patients, Chance) -> the rows (m, DAYS) that one patient adds.
    """
    n, parts = len(patients.rho), []
    one, luck = patients.of([0]), chance.of([0])
    # the first patient's policy finds nothing on day 0 and from then on the first of her own rows, which day 0 decides
    rows = asked(lived(one, luck, gamma, np.zeros((1, DAYS))), one, luck)
    parts.append(lived(one, luck, gamma, rows[:1], blind=True))
    rows = asked(parts[0], one, luck)
    while len(parts) < len(rows) < n:
        i = [len(parts)]
        one, luck = patients.of(i), chance.of(i)
        parts.append(lived(one, luck, gamma, rows[i]))
        rows = np.concatenate([rows, asked(parts[-1], one, luck)])
    rest = np.arange(len(parts), n)
    parts += [lived(patients.of(rest), chance.of(rest), gamma, rows[rest])] if len(rest) else []
    return Lives(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Lives)))


@dataclasses.dataclass(frozen=True)
class Questions:
    """N (patient, day) pairs, each with `plans` worlds: what is known on the day, and the truth."""

    who: np.ndarray  # (N,) row of the patient
    day: np.ndarray  # (N,)
    truth: np.ndarray  # (N, worlds, steps): volumes after the day asked about; NaN: not in the set
    given: np.ndarray  # (N,) the arm that was given that day

    def of(self, rows) -> "Questions":
        return Questions(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


def _pairs(lives: Lives):
    who = np.repeat(np.arange(len(lives.length)), lives.length)
    day = np.concatenate([np.arange(k) for k in lives.length])
    return who, day, (2 * lives.chemo[who, day] + lives.radio[who, day]).astype(int)


def one_step(lives: Lives, patients: Patients, chance: Chance) -> Questions:
    """All four arms on every day. What was done ends at death or cure, the other three as the law says."""
    who, day, given = _pairs(lives)
    before = np.where(day > 0, lives.drug[who, day - 1], 0.0)
    drug, dose = before[:, None] / 2 + 5 * ARMS[:, 0], 2 * ARMS[:, 1]
    rows = Patients(*(getattr(patients, f.name)[who, None] for f in dataclasses.fields(patients)))
    truth = grown(lives.volume[who, day][:, None], drug, dose, rows, chance.noise[who, day + 1][:, None])
    truth[np.arange(len(who)), given] = lives.volume[who, day + 1]
    return Questions(who, day, truth[:, :, None], given)


def sliding(lives: Lives, patients: Patients, chance: Chance) -> Questions:
    """The day as it was lived, then each of ten plans of five days: volumes of the second to the sixth day after."""
    who, day, given = _pairs(lives)
    rows = Patients(*(getattr(patients, f.name)[who, None] for f in dataclasses.fields(patients)))
    volume = np.repeat(lives.volume[who, day + 1][:, None], len(PLANS), axis=1)
    drug, truth = np.repeat(lives.drug[who, day][:, None], len(PLANS), axis=1), []
    for k in range(AHEAD):
        drug = drug / 2 + 5 * PLANS[:, k, 0]
        volume = grown(volume, drug, 2 * PLANS[:, k, 1], rows, chance.noise[who, day + k + 2][:, None], inside=1e-7)
        truth.append(volume)
    truth = np.stack(truth, axis=-1)
    truth[np.isnan(truth).any(axis=-1)] = np.nan  # a tumor below nothing: such rows are left out of the set
    return Questions(who, day, truth, given)


def rows_of(questions):
    """How `coded` learns of the rows of one patient: `questions` is `one_step` or `sliding`."""

    def asked(life, patient, chance):
        found, rows = questions(life, patient, chance), []
        for day, truth, given in zip(found.day, found.truth, found.given, strict=True):
            order = range(len(truth)) if len(truth) != len(ARMS) else [given, *(a for a in range(4) if a != given)]
            for w in order:
                if np.isnan(truth[w]).any():
                    continue
                row = np.zeros(DAYS + AHEAD + 1)
                row[: day + 1] = life.volume[0, : day + 1]
                at = day + 1 if len(truth) == len(ARMS) else day + 2
                row[day + 1] = life.volume[0, day + 1]
                row[at : at + truth.shape[1]] = truth[w]
                rows.append(row[:DAYS])
        return np.array(rows)

    return asked


# ---------------------------------------------------------------------------------------------------- exact answers


@dataclasses.dataclass(frozen=True)
class Bodies:
    """Draws (N, M) of what is not known of N patients: what `grown` needs."""

    rho: np.ndarray
    beta_c: np.ndarray
    alpha: np.ndarray


def features(lives: Lives):
    """Of each day: relative growth (n, DAYS - 1), and what (rho, beta_c, alpha) are multiplied by to give it (n, DAYS - 1, 3)."""
    before, after = lives.volume[:, :-1], lives.volume[:, 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        growth, logarithm = after / before - 1, np.log(CAPACITY / before)
    dose = 2 * lives.radio[:, :-1]
    return growth, np.stack([logarithm, -lives.drug[:, :-1], -dose * (1 + dose / 10)], axis=-1)


def exact(lives: Lives, patients: Patients, questions: Questions, rng, draws=64) -> Bodies:
    """Draws of the exact posterior on each (patient, day), from the patient's own volumes and doses up to that day."""
    mean, covariance = gaussian(lives, patients, questions)
    a, r = _cut(mean[:, [2, 0]], covariance[:, [[2], [0]], [2, 0]], rng, draws)
    gain = np.linalg.solve(covariance[:, [[0], [2]], [0, 2]], covariance[:, [0, 2], 1][:, :, None])[:, :, 0]
    left = np.sqrt(covariance[:, 1, 1] - np.einsum("ni,ni->n", gain, covariance[:, [0, 2], 1]))
    b = mean[:, 1, None] + gain[:, :1] * (r - mean[:, :1]) + gain[:, 1:] * (a - mean[:, 2:])
    more = np.array([KINDS[k] for k in patients.kind[questions.who]])
    return Bodies(r, b + left[:, None] * rng.standard_normal(b.shape) + more[:, 1:], a + more[:, :1])


def gaussian(lives, patients, questions):
    """Mean (N, 3) and covariance (N, 3, 3) of (rho, beta_c, alpha) less what the type adds, before they are cut at zero."""
    growth, f = features(lives)
    more = np.array([(0.0, chemo, alpha) for alpha, chemo in (KINDS[k] for k in patients.kind)])
    known = np.arange(DAYS - 1) < lives.length[:, None] - 1  # the last day ends in death or cure, or is never asked about
    y = np.where(known, growth - np.einsum("ntk,nk->nt", np.where(known[:, :, None], f, 0.0), more), 0.0)
    f = np.where(known[:, :, None], f, 0.0)
    prior = np.zeros((3, 3))
    covariance = CORRELATION * ALPHA[1] * RHO[1]
    prior[np.ix_([0, 2], [0, 2])] = np.linalg.inv([[RHO[1] ** 2, covariance], [covariance, ALPHA[1] ** 2]])
    prior[1, 1] = 1 / CHEMO[1] ** 2

    def before(terms):  # sums over the days before each
        return np.concatenate([np.zeros_like(terms[:, :1]), np.cumsum(terms, axis=1)], axis=1)[questions.who, questions.day]

    precision = prior + before(f[..., :, None] * f[..., None, :]) / NOISE**2
    covariance = np.linalg.inv(precision)
    told = prior @ np.array([RHO[0], CHEMO[0], ALPHA[0]]) + before(f * y[..., None]) / NOISE**2
    return np.einsum("nij,nj->ni", covariance, told), covariance


def _cut(mean, covariance, rng, draws, points=400):
    """Draws (N, M) of pairs from Gaussians (N, 2), (N, 2, 2) where both are positive: the first by its marginal on a grid."""
    m, n = mean.T
    s = np.sqrt(covariance[:, 0, 0])
    slope = covariance[:, 0, 1] / covariance[:, 0, 0]
    left = np.sqrt(covariance[:, 1, 1] - slope * covariance[:, 0, 1])
    low = np.maximum(0.0, m - 7 * s)
    high = np.maximum(m + 7 * s, low + 20 * s / np.maximum(1.0, np.abs(m) / s))
    grid = low[:, None] + (high - low)[:, None] * (np.arange(points) + 0.5) / points
    chance = ndtr((n[:, None] + slope[:, None] * (grid - m[:, None])) / left[:, None])
    with np.errstate(divide="ignore"):
        log = -0.5 * ((grid - m[:, None]) / s[:, None]) ** 2 + np.log(chance)
    weight = np.cumsum(np.exp(log - log.max(axis=1, keepdims=True)), axis=1)
    rank = (np.argsort(rng.random((len(m), draws)), axis=1) + rng.random((len(m), draws))) / draws * weight[:, -1:]
    cell = np.array([np.searchsorted(w, u) for w, u in zip(weight, rank, strict=True)])
    below = np.where(cell > 0, np.take_along_axis(weight, np.maximum(cell - 1, 0), 1), 0.0)
    part = (rank - below) / (np.take_along_axis(weight, cell, 1) - below)
    first = low[:, None] + (high - low)[:, None] * (cell + part) / points
    middle = n[:, None] + slope[:, None] * (first - m[:, None])
    share = ndtr(middle / left[:, None]) * rng.random(first.shape)
    return first, np.maximum(middle - left[:, None] * ndtri(np.maximum(share, 1e-300)), 0.0)


def forecast(lives: Lives, questions: Questions, bodies: Bodies, noise):
    """Volumes (N, worlds, steps, M) of the same worlds for other bodies. `noise` (N, AHEAD + 1, M) of the days to come."""
    who, day, worlds = questions.who, questions.day, questions.truth.shape[1]
    rows = Bodies(*(getattr(bodies, f.name)[:, None, :] for f in dataclasses.fields(bodies)))
    volume = lives.volume[who, day][:, None, None]
    if worlds == len(ARMS):  # which arm was lived is not given away by cutting it at death
        before = np.where(day > 0, lives.drug[who, day - 1], 0.0)[:, None]
        drug, dose = (before / 2 + 5 * ARMS[:, 0])[:, :, None], (2 * ARMS[:, 1])[None, :, None]
        return grown(volume, drug, dose, rows, noise[:, None, 0])[:, :, None]
    drug = np.repeat(lives.drug[who, day][:, None, None], worlds, axis=1)
    today = grown(volume, drug[:, :1], 2 * lives.radio[who, day][:, None, None], rows, noise[:, None, 0])
    volume, found = np.repeat(np.clip(today, 0, DEAD), worlds, axis=1), []
    for k in range(AHEAD):
        drug = drug / 2 + 5 * PLANS[None, :, k, 0, None]
        with np.errstate(invalid="ignore"):
            volume = grown(volume, drug, 2 * PLANS[None, :, k, 1, None], rows, noise[:, None, k + 1], inside=1e-7)
        found.append(volume)
    return np.stack(found, axis=2)


def rmse(predicted, truth, steps=None):
    """Root mean square error in percent of the volume that is not survived. (N, worlds, steps) each; NaN in `truth`: no row."""
    miss = (predicted - truth) if steps is None else (predicted - truth)[..., steps]
    return float(100 * np.sqrt(np.nanmean(miss**2)) / DEAD)
