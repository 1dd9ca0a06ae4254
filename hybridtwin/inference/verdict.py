"""The verdict on one fit: diagnostics turned into reasons."""

import numpy as np

from hybridtwin.fit import Judgment, Part
from hybridtwin.inference import diagnostics
from hybridtwin.inference.psis import USABLE, limit

_COMPANY, _ALONE = 6, 1e-3  # residuals from which on one may stand alone, and the chance under which it is told


def computed(stats) -> Part:
    """Did the computation converge? Judged is what the method left: chains by their mixing, an approximation by its weights."""
    judge = Judgment()
    if "rhat" in stats:
        rhat, bulk, tail = stats["rhat"], stats["ess_bulk"], stats["ess_tail"]
        names = stats["names"]
        worst = int(np.argmax(np.where(np.isfinite(rhat), rhat, np.inf)))
        judge.above(rhat[worst], diagnostics.RHAT, 1.10, f"R-hat of {names[worst]} is {rhat[worst]:.3f} (chains have not mixed)")
        low = float(np.min(np.minimum(bulk, tail)))  # not a number where a lane did not move: red
        judge.above(-low, -diagnostics.ESS, -60, f"smallest effective sample size is {low:.0f}")
    if "divergent" in stats:
        judge.above(stats["divergent"], 0.01, 0.05, f"{100 * stats['divergent']:.1f} % of the transitions diverged")
    if "bfmi" in stats:
        judge.above(
            -float(np.min(stats["bfmi"])), -0.3, -0.1, f"E-BFMI is {float(np.min(stats['bfmi'])):.2f} (heavy tails)"
        )
    if "reached" in stats:
        judge.above(-stats["reached"], -1.0, -1.0, "the tempered populations did not reach the posterior")
        judge.above(-stats["acceptance"], -0.4, -0.1, f"only {100 * stats['acceptance']:.0f} % of the last moves were accepted")
        error = stats["log_evidence_se"]
        judge.above(error, 0.3, 1.0, f"the islands differ in evidence (standard error of its log {error:.2f})")
    if "guide_khat" in stats:
        told = f"k-hat of the guide against the posterior is {stats['guide_khat']:.2f}; use ht.Auto() or ht.SMC()"
        _tail(judge, stats["guide_khat"], stats["share"], told)
        judge.above(-stats["climbed"], -0.5, -0.5, "the evidence bound was not finite at the end of the climb")
    if "khat" in stats:
        _weighted(judge, stats)
    elif "share" in stats:
        judge.above(
            -stats["share"],
            -0.5,
            -0.02,
            f"the posterior is no Gaussian: of the draws of one at its mode {100 * stats['share']:.0f} % count; "
            "ht.Auto() samples the posterior itself",
        )
        # only here do the draws stand on the mode; a sampler merely starts from it
        judge.above(stats["gradient"], 0.1, 2.0, f"the mode was not reached (a step of {stats['gradient']:.2g} sd remains)")
    judge.above(
        -stats["mesh_share"],
        -0.8,
        -0.3,
        f"halving the steps changes the density of the draws (only "
        f"{100 * stats['mesh_share']:.0f} % of them count after correction)",
    )
    judge.above(stats["failed"], 0.01, 0.1, f"{100 * stats['failed']:.1f} % of the draws could not be solved")
    if stats["rivals"]:
        share = 100 * stats["rivals"]
        told = f"another mode holds about {share:.0f} % of the posterior; it is not among the draws (ht.SMC() weighs modes)"
        judge.above(share, 0.0, 20.0, told)
    if stats.get("interrupted"):
        judge.say("CAUTION", "sampling was interrupted; fewer draws than asked")
    return judge.part


def _tail(judge, khat, share, told):
    """The tail of weights, of which this share of the draws counts; a k-hat that is no number is red."""
    most = limit(share)
    judge.above(max(khat, -1.0), most, max(most, USABLE), told)


def _weighted(judge, stats):
    """Draws of importance sampling: trusted by their k-hat, by how many count, and where what taught the mixture agrees."""
    khat, count = stats["khat"], stats["ess"]
    way_out = "ht.Auto() goes on where importance sampling does not reach"
    _tail(judge, khat, stats["share"], f"k-hat of the importance weights is {khat:.2f}; {way_out}")
    judge.above(-count, -diagnostics.ESS, -60, f"only {count:.0f} of the weighted draws count; {way_out}")
    judge.above(-stats["share"], -0.15, -0.01, f"{100 * stats['share']:.1f} % of the weighted draws count; {way_out}")
    judge.above(stats["drift"], 0.1, 0.5, "the weighted draws disagree with those that taught their proposal")


def alone(r) -> tuple[int, float]:
    """Which of residuals r (n,) lies farthest out, and the chance that one of n from a Gaussian does so (Grubbs 1950,
    doi:10.1214/aoms/1177729885): by their own spread, for an error that may grow makes room for any single reading.
    """
    from scipy.special import stdtr

    n, far, spread = len(r), np.abs(r - np.mean(r)), float(np.var(r, ddof=1))
    if not spread:
        return 0, 1.0
    at, square = int(np.argmax(far)), float(np.max(far) ** 2) / spread
    room = (n - 1) ** 2 - n * square
    if room <= 1e-9 * n**2:  # all others are alike
        return at, 0.0
    return at, min(1.0, 2 * n * float(stdtr(n - 2, -np.sqrt(n * (n - 2) * square / room))))


def fits(residuals, z_mean, names, roles) -> Part:
    """Does the model fit what was seen, and do prior and readings agree?

    **Arguments:** residuals: sensor -> (N,) standardized one-step-ahead residuals, averaged over draws, NaN where there is
    none; z_mean (d,): posterior means in units of the prior's standard deviation; roles (d,): kind of each site.
    """
    judge = Judgment()
    for name, r in residuals.items():
        seen = r[np.isfinite(r)]
        if len(seen) < 3 or not seen.any():  # counts have no residuals
            continue
        n = len(seen)
        spread = float(np.mean(seen**2))
        slack = 3 * np.sqrt(2 / n)
        judge.above(
            spread,
            1.6 + slack,
            4 + slack,
            f"{name}: residuals are {np.sqrt(spread):.1f} times as large as the error model says",
        )
        outside = float(np.mean(np.abs(seen) > 2.576))
        judge.above(
            outside,
            0.05 + 1.5 / n,
            0.2 + 1.5 / n,
            f"{name}: {100 * outside:.0f} % of the readings lie outside their 99 % band",
        )
        if n >= _COMPANY:
            at, chance = alone(seen)
            told = (
                f"{name}: residual {at + 1} of {n} stands alone, as under this error in 1 of "
                f"{1 / max(chance, 1e-9):,.0f} records (a slip, or a unit?)"
            )
            judge.above(-chance, -_ALONE, 0.0, told)
        if n >= 8:
            rho = float(diagnostics.autocorrelation(seen))
            bound = 2 / np.sqrt(n)
            judge.above(
                rho,
                max(0.3, 0.15 + bound),  # 2.6 standard errors of 18 residuals, an effect worth telling of many
                0.6 + bound,
                f"{name}: what neighboring readings leave over correlates by {rho:.2f}; under the error model it would not",
            )
    for name, shift, role in zip(names, z_mean, roles, strict=True):
        if role in ("system", "sensor"):
            judge.above(abs(shift), 3.0, 5.0, f"{name} lies {abs(shift):.1f} prior standard deviations from its prior")
    return judge.part


def informed(ratios, names, roles) -> Part:
    """Did the readings narrow anything about this body? ratios (d,): posterior sd over prior sd."""
    judge = Judgment()
    own = np.array([r for r, role in zip(ratios, roles, strict=True) if role == "system"])
    if own.size and own.min() > 0.9:
        judge.say(
            "CAUTION", "the readings narrow no parameter of the body by more than a tenth; answers rest on the prior"
        )
    return judge.part


def supported(problem) -> Part:
    """Is there enough to stand on?"""
    judge = Judgment()
    few = problem.n_readings
    if few < 2:
        judge.say("CAUTION", f"only {few} reading")
    for name, rows in problem.used.items():
        seen = problem.bound.readings[name]
        same = np.stack([seen.time[rows], seen.value[rows], seen.session[rows]])[:, seen.censored[rows] == 0]
        again = same.shape[1] - np.unique(same, axis=1).shape[1]
        if again > max(2, 0.2 * same.shape[1]):
            told = f"{name}: {again} readings repeat the time and value of another; a row that stands twice counts twice"
            judge.say("CAUTION", told)
    if problem.model.spec.noise and not problem.model.driven:
        judge.say("CAUTION", "the process noise of the system was left out of the fit; the sensor's error took its place")
    horizon = problem.model.spec.horizon
    span = problem.bound.stop - problem.bound.start
    if horizon is not None and span > horizon:
        judge.say("CAUTION", f"the record is longer than the {problem.model.spec.name} was declared for")
    return judge.part
