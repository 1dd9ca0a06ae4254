"""The thyroid under the pituitary: T4, T3 and TSH over weeks, with hormones by mouth."""

import jax
import jax.numpy as jnp
import numpy as np

from hybridtwin.physiology.reference import Protocol, Reference, Since, half_life
from hybridtwin.signals import Regimen, Signal
from hybridtwin.simulate.verb import simulate
from hybridtwin.system import (
    Input,
    Scalar,
    State,
    System,
    const,
    constant,
    dose,
    lognormal,
    output,
    parameter,
    signal,
    state,
)

_PAPER = "Cruz-Loya 2022, doi:10.3389/fendo.2022.888429, as in the programs of its group"
_SPREAD = _PAPER + "; spread assumed"
_LAB = "Laposata, Laboratory Medicine, its table as in ehrapy"
_WEEK = 168.0


def _hill(ratio, n):
    """ratio^n / (1 + ratio^n), by the logarithm: ratio is positive."""
    return jax.nn.sigmoid(n * jnp.log(ratio))


class CruzLoya2022(System):
    r"""Thyroid hormones in plasma and two kinds of tissue, TSH driven by the hormones that reach the pituitary, pills.

    free4 = (A + B q1 + C q1^2 + D q1^3) q1          free3 = (a + b q1 + c q1^2 + d q1^3) q4
    early = VD1fast / (KD1fast + q2)      late1 = VD1slow / (KD1slow + q3)      late2 = VD2slow / (KD2slow + q3)
    dq1/dt = thyroid S4 q19 + k12 q2 + k13 q3 - (k31 + k21) free4 + k4absorb gut4
    dq2/dt = k21 free4 - (k12 + k02 + early) q2      dq3/dt = k31 free4 - (k13 + late1 + late2) q3
    dq4/dt = thyroid S3 q19 + k45 q5 + k46 q6 - (k64 + k54) free3 + k3absorb gut3
    dq5/dt = k54 free3 + early q2 - (k45 + k05) q5   dq6/dt = k64 free3 + (late1 + late2) q3 - k46 q6
    circ = q9^n / (q9^n + Kcirc^n)
    dq7/dt = (B0 + A0 circ sin(pi/12 t - phi)) Ksr^m / (Ksr^m + q9^m) - (kdeg + VTSH / (KTSH + q7)) q7
    f4 = k3 (1 + 5 Kf4^l / (Kf4^l + q8^l))           flag = klag + 2 q8^11 / (Klag^11 + q8^11)
    dq8/dt = f4 q1 / T4eu + k3 q4 / T3eu - kT3B q8   dq9/dt = flag (q8 - q9)
    pill4, gut4, pill3, gut3: dissolve at dis4, dis3, absorbed at k4absorb, k3absorb, lost at lost4, lost3
    dq14/dt = kd (q7 - q14), ..., dq19/dt = kd (q18 - q19)

    q1 to q3 T4 `plasma4`, `fast4`, `slow4` and q4 to q6 T3 `plasma3`, `fast3`, `slow3` [umol] in plasma and two kinds of tissue;
    q7 `tsh` [1, 5.6 mU each], q14 to q19 `way1` to `way6` its way to the thyroid; q8, q9 T3 in `brain` and `lag` [1]; pills and
    guts [ug]. T4 = 777 q1 / Vp, T3 = 651 q4 / Vp [ug/L], TSH = 5.6 q7 / Vtsh [mU/L]; time in h from midnight, t in the equations
    less `dawn`, which places the highest TSH at midnight (the paper's day begins at its own hour). The reference man (1.76 m,
    BMI 21.8): the scaling to sizes is left out. It has a day but no rest; the start is where it settles.

    Doses: `levothyroxine` (compartment 1), `liothyronine` (2) [ug]. Interventions: `thyroid` the share of the gland that works.
    Source: Cruz-Loya 2022, doi:10.3389/fendo.2022.888429, after Eisenberg 2008, doi:10.1089/thy.2007.0388.
    """

    time = "h"
    grid = "2 h"
    horizon = "2 a"
    restless = "a rhythm of the day"
    protocol = Protocol(
        16 * _WEEK, "the thyroid taken out after a week; from week 9 on 112 ug of levothyroxine (1.6 ug/kg) each morning",
        shows=("TSH", "T4", "T3"), tol=1e-4,
        doses={"levothyroxine": Regimen.bolus(112.0, "ug", at=8 * _WEEK + 8.0).every("1 d", times=56)},
        signals={"thyroid": Signal.steps([0.0, _WEEK], [1.0, 0.0], "1")},
    )  # fmt: skip
    references = (
        Reference("TSH, mean of a day", "m[IU]/L", (0.4, 4.0),
                  "Baloch 2003, laboratory guidelines, doi:10.1089/105072503321086962: .4 to 4",
                  lambda lived: np.mean(lived["TSH"][:12]), drawn=("TSH", 12.0)),
        Reference("T4", "ug/L", (55.0, 125.0), _LAB, lambda lived: np.mean(lived["T4"][:12]), drawn=("T4", 12.0)),
        Reference("T3", "ug/L", (0.7, 2.0), _LAB, lambda lived: np.mean(lived["T3"][:12]), drawn=("T3", 12.0)),
        Reference("hour of the highest TSH", "h", (20.0, 28.0), "textbooks: late evening to the first hours of the night",
                  lambda lived: 2.0 * np.argmax(lived["TSH"][6:18]) + 12.0, drawn=("TSH", Since())),
        Reference("half-life of T4 without a thyroid", "d", (6.0, 7.0), "label of levothyroxine",
                  lambda lived: half_life(lived, "T4", 2 * _WEEK, 4 * _WEEK) / 24.0),
        Reference("TSH two weeks after thyroidectomy, day's mean", "m[IU]/L", 53.0,
                  "Kannan 2019, 40 patients, doi:10.4103/ijem.IJEM_166_19: 53 +- 17",
                  lambda lived: np.mean(lived["TSH"][(lived.time >= 3 * _WEEK - 24.0) & (lived.time < 3 * _WEEK)]),
                  drawn=("TSH", 3 * _WEEK - 12.0),
                  why="the paper's secretion without hormone: it leads to 900 within six weeks"),
        Reference("TSH on 1.6 ug/kg of levothyroxine, day's mean", "m[IU]/L", (0.4, 4.0),
                  "Jonklaas 2014, doi:10.1089/thy.2014.0028: the dose that replaces a thyroid",
                  lambda lived: np.mean(lived["TSH"][-12:]), drawn=("TSH", 16 * _WEEK - 12.0)),
        Reference("hours from liothyronine to the highest T3", "h", 2.44, "Leggio 2006, 20 ug, doi:10.1007/BF03349205",
                  lambda lived: _rise(lived)),
    )  # fmt: skip

    class State(State):
        plasma4: Scalar = state("umol", "T4 in plasma")
        fast4: Scalar = state("umol", "T4 in tissue that exchanges fast (liver, kidney)")
        slow4: Scalar = state("umol", "T4 in tissue that exchanges slowly (muscle, brain)")
        plasma3: Scalar = state("umol", "T3 in plasma")
        fast3: Scalar = state("umol", "T3 in tissue that exchanges fast")
        slow3: Scalar = state("umol", "T3 in tissue that exchanges slowly")
        tsh: Scalar = state("1", "TSH in plasma, in units of 5.6 mU")
        brain: Scalar = state("1", "T3 in the brain over its normal input")
        lag: Scalar = state("1", "T3 in the brain as TSH answers it")
        pill4: Scalar = state("ug", "levothyroxine not yet dissolved")
        gut4: Scalar = state("ug", "levothyroxine in the gut")
        pill3: Scalar = state("ug", "liothyronine not yet dissolved")
        gut3: Scalar = state("ug", "liothyronine in the gut")
        way1: Scalar = state("1", "TSH on its way to the thyroid, step 1")
        way2: Scalar = state("1", "TSH on its way to the thyroid, step 2")
        way3: Scalar = state("1", "TSH on its way to the thyroid, step 3")
        way4: Scalar = state("1", "TSH on its way to the thyroid, step 4")
        way5: Scalar = state("1", "TSH on its way to the thyroid, step 5")
        way6: Scalar = state("1", "TSH on its way to the thyroid, step 6")

    class Input(Input):
        levothyroxine: Scalar = dose("ug", "levothyroxine swallowed", into="pill4", cmt=1)
        liothyronine: Scalar = dose("ug", "liothyronine swallowed", into="pill3", cmt=2)
        thyroid: Scalar = signal("1", "share of the thyroid that works", default=1.0)

    S4: Scalar = parameter(lognormal(0.0027785399344, 0.15), "umol/h", "T4 made for a unit of TSH", source=_SPREAD)
    S3: Scalar = parameter(lognormal(0.00033572, 0.15), "umol/h", "T3 made for a unit of TSH", source=_SPREAD)
    k02: Scalar = parameter(lognormal(0.0189, 0.15), "1/h", "T4 lost from fast tissue", source=_SPREAD)
    k05: Scalar = parameter(lognormal(0.184972339613, 0.15), "1/h", "T3 lost from fast tissue", source=_SPREAD)
    VD2slow: Scalar = parameter(lognormal(0.00074619, 0.15), "umol/h", "deiodinase 2 in slow tissue", source=_SPREAD)
    B0: Scalar = parameter(lognormal(450.0, 0.2), "1/h", "largest secretion of TSH", source=_SPREAD)
    Ksr: Scalar = parameter(lognormal(3.094711690204, 0.05), "1", "brain T3 of half of it", source=_SPREAD)
    k4absorb: Scalar = parameter(lognormal(0.88, 0.1), "1/h", "absorption of levothyroxine", source=_SPREAD)
    Vp: Scalar = parameter(lognormal(3.2, 0.1), "L", "volume of plasma", source=_SPREAD)
    k12: Scalar = constant(0.868, "1/h", "T4 back from fast tissue", _PAPER)
    k13: Scalar = constant(0.108, "1/h", "T4 back from slow tissue", _PAPER)
    k31: Scalar = constant(584.0, "1/h", "free T4 into slow tissue", _PAPER)
    k21: Scalar = constant(1503.0, "1/h", "free T4 into fast tissue", _PAPER)
    A: Scalar = constant(0.000289, "1", "free share of T4", _PAPER)
    B: Scalar = constant(0.000214, "1/umol", "free share of T4", _PAPER)
    C: Scalar = constant(0.000128, "1/umol^2", "free share of T4", _PAPER)
    D: Scalar = constant(-8.83e-06, "1/umol^3", "free share of T4", _PAPER)
    VD1fast: Scalar = constant(0.012101809339, "umol/h", "deiodinase 1 in fast tissue", _PAPER)
    KD1fast: Scalar = constant(2.85, "umol", "its half", _PAPER)
    VD1slow: Scalar = constant(0.000663, "umol/h", "deiodinase 1 in slow tissue", _PAPER)
    KD1slow: Scalar = constant(95.0, "umol", "its half", _PAPER)
    KD2slow: Scalar = constant(0.075, "umol", "half of deiodinase 2", _PAPER)
    k45: Scalar = constant(5.37, "1/h", "T3 back from fast tissue", _PAPER)
    k46: Scalar = constant(0.0689, "1/h", "T3 back from slow tissue", _PAPER)
    k64: Scalar = constant(127.0, "1/h", "free T3 into slow tissue", _PAPER)
    k54: Scalar = constant(2043.0, "1/h", "free T3 into fast tissue", _PAPER)
    a: Scalar = constant(0.00395, "1", "free share of T3", _PAPER)
    b: Scalar = constant(0.00185, "1/umol", "free share of T3", _PAPER)
    c: Scalar = constant(0.00061, "1/umol^2", "free share of T3", _PAPER)
    d: Scalar = constant(-0.000505, "1/umol^3", "free share of T3", _PAPER)
    A0: Scalar = constant(219.7085301388, "1/h", "swing of TSH over the day", _PAPER)
    phi: Scalar = constant(-3.71, "1", "its phase", _PAPER)
    dawn: Scalar = constant(6.0, "h", "hour at which the paper's day begins: assumed", "assumed")
    kdeg: Scalar = constant(0.53, "1/h", "loss of TSH", _PAPER)
    VTSH: Scalar = constant(0.226, "1/h", "loss of TSH that saturates", _PAPER)
    KTSH: Scalar = constant(23.0, "1", "its half", _PAPER)
    k3: Scalar = constant(0.058786935033, "1/h", "hormone into the brain", _PAPER)
    T4eu: Scalar = constant(0.29, "umol", "normal T4 in plasma", _PAPER)
    T3eu: Scalar = constant(0.006, "umol", "normal T3 in plasma", _PAPER)
    kT3B: Scalar = constant(0.037, "1/h", "loss of T3 from the brain", _PAPER)
    klag: Scalar = constant(0.0034, "1/h", "answer of TSH to brain T3 at least", _PAPER)
    Klag: Scalar = constant(5.0, "1", "brain T3 of half of the fast answer", _PAPER)
    Kcirc: Scalar = constant(3.001011022378, "1", "brain T3 of half the swing", _PAPER)
    n: Scalar = constant(5.674773816316, "1", "steepness of that", _PAPER)
    m: Scalar = constant(6.290803221796, "1", "steepness of the feedback", _PAPER)
    Kf4: Scalar = constant(8.498343729591, "1", "brain T3 that stops deiodination there", _PAPER)
    l: Scalar = constant(14.36664496926, "1", "steepness of that", _PAPER)
    kd: Scalar = constant(0.625, "1/h", "each step of TSH to the thyroid", _PAPER)
    dis4: Scalar = constant(1.3, "1/h", "levothyroxine dissolves", _PAPER)
    dis3: Scalar = constant(1.78, "1/h", "liothyronine dissolves", _PAPER)
    k3absorb: Scalar = constant(0.88, "1/h", "absorption of liothyronine", _PAPER)
    lost4: Scalar = constant(0.1056, "1/h", "levothyroxine lost from the gut", _PAPER)
    lost3: Scalar = constant(0.1056, "1/h", "liothyronine lost from the gut", _PAPER)
    Vtsh: Scalar = constant(5.2, "L", "volume of TSH", _PAPER)

    def rates(self, t, x, u):
        q1, q2, q3, q4 = x.plasma4, x.fast4, x.slow4, x.plasma3
        free4 = (self.A + self.B * q1 + self.C * q1**2 + self.D * q1**3) * q1
        free3 = (self.a + self.b * q1 + self.c * q1**2 + self.d * q1**3) * q4
        early = self.VD1fast / (self.KD1fast + q2)
        late = (self.VD1slow / (self.KD1slow + q3) + self.VD2slow / (self.KD2slow + q3)) * q3
        slept = 2.0 * jnp.pi / const(24.0, "h") * (t - self.dawn) - self.phi
        swing = self.A0 * _hill(x.lag / self.Kcirc, self.n) * jnp.sin(slept)
        secreted = (self.B0 + swing) * (1.0 - _hill(x.lag / self.Ksr, self.m))
        f4 = self.k3 * (1.0 + 5.0 * (1.0 - _hill(x.brain / self.Kf4, self.l)))
        flag = self.klag + const(2.0, "1/h") * _hill(x.brain / self.Klag, 11.0)
        way = (x.tsh, x.way1, x.way2, x.way3, x.way4, x.way5, x.way6)
        return self.State(
            plasma4=u.thyroid * self.S4 * x.way6 + self.k12 * q2 + self.k13 * q3 - (self.k31 + self.k21) * free4
            + self.k4absorb * x.gut4 / const(777.0, "ug/umol"),
            fast4=self.k21 * free4 - (self.k12 + self.k02 + early) * q2,
            slow4=self.k31 * free4 - self.k13 * q3 - late,
            plasma3=u.thyroid * self.S3 * x.way6 + self.k45 * x.fast3 + self.k46 * x.slow3 - (self.k64 + self.k54) * free3
            + self.k3absorb * x.gut3 / const(651.0, "ug/umol"),
            fast3=self.k54 * free3 + early * q2 - (self.k45 + self.k05) * x.fast3,
            slow3=self.k64 * free3 + late - self.k46 * x.slow3,
            tsh=secreted - (self.kdeg + self.VTSH / (self.KTSH + x.tsh)) * x.tsh,
            brain=f4 * q1 / self.T4eu + self.k3 * q4 / self.T3eu - self.kT3B * x.brain,
            lag=flag * (x.brain - x.lag),
            pill4=-self.dis4 * x.pill4,
            gut4=self.dis4 * x.pill4 - (self.lost4 + self.k4absorb) * x.gut4,
            pill3=-self.dis3 * x.pill3,
            gut3=self.dis3 * x.pill3 - (self.lost3 + self.k3absorb) * x.gut3,
            **{f"way{i}": self.kd * (way[i - 1] - way[i]) for i in range(1, 7)},
        )  # fmt: skip

    def conserved(self, x, u):
        """Iodothyronines: T4 becomes T3, and both are lost from fast tissue alone."""
        made = u.thyroid * (self.S4 + self.S3) * x.way6 - self.k02 * x.fast4 - self.k05 * x.fast3
        four, three = const(777.0, "ug/umol"), const(651.0, "ug/umol")
        return {
            "hormones": (x.plasma4 + x.fast4 + x.slow4 + x.plasma3 + x.fast3 + x.slow3,
                         made + self.k4absorb * x.gut4 / four + self.k3absorb * x.gut3 / three),
            "levothyroxine": (x.pill4 + x.gut4, -(self.lost4 + self.k4absorb) * x.gut4),
            "liothyronine": (x.pill3 + x.gut3, -(self.lost3 + self.k3absorb) * x.gut3),
        }  # fmt: skip

    def outputs(self, x, u):
        return {
            "TSH": output(const(5.6, "m[IU]") * x.tsh / self.Vtsh, "m[IU]/L", "thyrotropin in plasma"),
            "T4": output(const(777.0, "ug/umol") * x.plasma4 / self.Vp, "ug/L", "total T4 in plasma"),
            "T3": output(const(651.0, "ug/umol") * x.plasma3 / self.Vp, "ug/L", "total T3 in plasma"),
        }

    def initial(self, u):
        """Where the reference man settles, at midnight."""
        umol, one = const(1.0, "umol"), 1.0 + 0.0 * self.phi
        none = const(0.0, "ug") * one
        return self.State(
            plasma4=0.29580009 * umol * one, fast4=0.18150137 * umol * one, slow4=0.57963446 * umol * one,
            plasma3=0.0062043347 * umol * one, fast3=0.010484025 * umol * one,
            slow3=0.062563449 * umol * one, tsh=2.5050991 * one, brain=8.2445493 * one, lag=8.2457307 * one,
            pill4=none, gut4=none, pill3=none, gut3=none,
            way1=2.4180369 * one, way2=2.2441984 * one, way3=2.0223523 * one,
            way4=1.7925236 * one, way5=1.5899869 * one, way6=1.440789 * one,
        )  # fmt: skip


def _rise(lived):
    """Hours from 20 ug of liothyronine to the highest T3 in a healthy person."""
    fine = np.linspace(8.0, 20.0, 241)
    person = lived.again(signals={}, doses={"liothyronine": Regimen.bolus(20.0, "ug", at=8.0)}, stop=24.0).protocol.person("h")
    return fine[np.argmax(simulate(lived.body, person, at=fine)["T3"][0])] - 8.0
