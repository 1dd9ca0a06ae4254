"""Ways to personalize, as instances: `ht.personalize(model, person, ht.NUTS(draws=500), key=0)`.

A method says how it draws; the file that does it is loaded when it is first used.
"""

import abc
import dataclasses

import jax

from hybridtwin.engine import quiet
from hybridtwin.errors import ParameterError

PEOPLE = 16  # in one call of a compiled program on a CPU: enough to hide what the host does, few enough to fill up
WIDE = 32  # on an accelerator


class AbstractMethod(abc.ABC):
    """One way to draw from a posterior. `starts` ascents look for modes before it is asked to."""

    starts: int

    @abc.abstractmethod
    def draw(self, setting):
        """Draws for a tile of people: `sampling.Setting` -> list of `sampling.Drawn`, one a person."""

    def people_per_call(self) -> int:
        """How many people of a cohort share one call; fixed on a machine, so that a person's bits never depend on the others.

        It is the same for 8 people and for 8,000: the programs compiled are the same, too.
        """
        return PEOPLE if jax.default_backend() == "cpu" else WIDE


@dataclasses.dataclass(frozen=True)
class Auto(AbstractMethod):
    """The cascade: modes, Laplace approximations, adaptive importance sampling from them, and where its answer is not to be
    trusted, chains that jump by what it learned and walk where it does not reach, for up to `most` rounds; where they do not mix,
    the No-U-Turn sampler (`chains`, `warmup`), or, with several modes, tempered populations.

    About `draws` draws of each person. `stats["stage"]` of a fit says which stage answered, `stats["why"]` why.
    """

    draws: int = 1000
    starts: int = 8
    chains: int = 4
    warmup: int = 100
    most: int = 4

    def __post_init__(self):
        if self.draws < 20 * self.chains or self.chains < 2 or self.warmup < 50 or min(self.starts, self.most) < 1:
            raise ParameterError(
                "Auto needs draws >= 20 for each chain, chains >= 2, warmup >= 50, starts >= 1 and most >= 1. "
                "Leave them out for the defaults."
            )

    def draw(self, setting):
        from hybridtwin.inference import auto

        with quiet:
            return auto.draw(setting, self)


@dataclasses.dataclass(frozen=True)
class Importance(AbstractMethod):
    """Adaptive importance sampling from the Laplace approximations at the modes; `draws` draws of equal weight.

    `batch` draws teach the mixture in each of up to `rounds` rounds; the answer is a batch of its own. `stats` holds k-hat,
    the effective number of draws `ess` (of all that were weighed), how many of those kept are `distinct`, and the log evidence
    with its Monte Carlo error.
    """

    draws: int = 1000
    starts: int = 8
    rounds: int = 6
    batch: int = 1024

    def __post_init__(self):
        if self.draws < 20 or self.batch < 256 or min(self.starts, self.rounds) < 1:
            raise ParameterError(
                "Importance needs draws >= 20, batch >= 256, starts >= 1 and rounds >= 1. Leave them out for the defaults."
            )

    def draw(self, setting):
        from hybridtwin.inference import importance

        with quiet:
            return importance.draw(setting, self)


@dataclasses.dataclass(frozen=True)
class NUTS(AbstractMethod):
    """The No-U-Turn sampler in coordinates whitened by a Laplace approximation at the best of several modes.

    Each of `chains` keeps `draws`, and where they have not mixed goes on to up to `most` times as many; `starts` ascents look
    for modes; `target` is the acceptance rate aimed at.
    """

    draws: int = 250
    chains: int = 4
    warmup: int = 200
    most: int = 4
    starts: int = 8
    target: float = 0.85
    depth: int = 8

    def __post_init__(self):
        if self.draws < 20 or self.chains < 2 or self.warmup < 50 or min(self.starts, self.most) < 1:
            raise ParameterError(
                "NUTS needs draws >= 20, chains >= 2, warmup >= 50, starts >= 1 and most >= 1: fewer cannot be checked. "
                "Use ht.Laplace() for a quick look."
            )

    def draw(self, setting):
        from hybridtwin.inference import nuts

        return nuts.draw(setting, self)


@dataclasses.dataclass(frozen=True)
class HMC(AbstractMethod):
    """Hamiltonian Monte Carlo for pooled models, the default there: quarter turns on coordinates that undo the pooling.

    On coordinates that make the joint posterior of a population and its people nearly standard normal, the normal part of the
    motion is exact and only what is left is stepped, in as few steps as `target` of the proposals are accepted with
    (`stats["leapfrogs"]`). Each of `chains` keeps `draws`, and where they have not mixed goes on to up to `most` times as many.
    `NUTS` is the way where trajectories need lengths of their own.
    """

    draws: int = 250
    chains: int = 4
    warmup: int = 100
    most: int = 4
    starts: int = 1
    target: float = 0.9

    def __post_init__(self):
        if self.draws < 20 or self.chains < 2 or self.warmup < 50 or self.most < 1 or not 0.4 <= self.target <= 0.99:
            raise ParameterError(
                "HMC needs draws >= 20, chains >= 2, warmup >= 50, most >= 1 and a target between 0.4 and 0.99. "
                "Leave them out for the defaults."
            )

    def draw(self, setting):
        raise ParameterError("HMC pools a cohort; for one person use ht.Auto() or ht.NUTS().")


@dataclasses.dataclass(frozen=True)
class ShortChains(AbstractMethod):
    """Many short Hamiltonian chains in step, their trajectories of one learned length (ChEES; Hoffman et al. 2021).

    `chains` in `superchains` groups that start at one point each; every chain keeps `draws` after `warmup` transitions. Nested
    R-hat decides; where the groups still differ, what was drawn becomes warm-up, for up to `most` rounds. Made for wide
    hardware: all chains are lanes of one program. Where trees are deep on few cores, `NUTS` costs less.
    """

    draws: int = 16
    chains: int = 128
    superchains: int = 8
    warmup: int = 120
    most: int = 4
    starts: int = 8

    def __post_init__(self):
        if self.draws < 8 or self.superchains < 4 or self.warmup < 20 or min(self.starts, self.most) < 1:
            raise ParameterError(
                "ShortChains needs draws >= 8, superchains >= 4, warmup >= 20, starts >= 1 and most >= 1: fewer cannot be "
                "checked. Leave them out for the defaults."
            )
        if self.chains % self.superchains or self.chains < 2 * self.superchains:
            raise ParameterError(
                f"ShortChains needs at least two chains in each of {self.superchains} superchains of equal size, not "
                f"{self.chains} in all. Use chains={16 * self.superchains}."
            )

    def draw(self, setting):
        from hybridtwin.inference import chains

        return chains.draw(setting, self)

    def people_per_call(self) -> int:
        """One on a CPU: its lanes are many already, and people would wait for each other."""
        return 1 if jax.default_backend() == "cpu" else WIDE


@dataclasses.dataclass(frozen=True)
class Variational(AbstractMethod):
    """A full-rank Gaussian guide (NumPyro) fitted by its evidence lower bound, from the Laplace approximation on.

    `draws` from the guide after `steps` of Adam at `rate`. `stats["evidence_bound"]` is a lower bound, not the evidence;
    `stats["guide_khat"]` says whether the guide stands for the posterior. Several modes are one too many for it: use `SMC`.
    """

    draws: int = 1000
    steps: int = 800
    rate: float = 0.05
    starts: int = 8

    def __post_init__(self):
        if self.draws < 50 or self.steps < 50 or not 0 < self.rate < 1 or self.starts < 1:
            raise ParameterError(
                "Variational needs draws >= 50, steps >= 50, 0 < rate < 1 and starts >= 1. Leave them out for the defaults."
            )

    def draw(self, setting):
        from hybridtwin.inference import variational

        return variational.draw(setting, self)


@dataclasses.dataclass(frozen=True)
class SMC(AbstractMethod):
    """Tempered sequential Monte Carlo from the prior to the posterior: several modes by their weights, and the evidence.

    `particles` in `islands` that never exchange anything: what they disagree about is the Monte Carlo error. Temperatures are
    chosen so that `keep` of the particles count after each; then `moves` Hamiltonian transitions of every particle.
    """

    particles: int = 1024
    islands: int = 8
    moves: int = 3
    keep: float = 0.5
    starts: int = 2

    def __post_init__(self):
        if self.islands < 2 or self.particles % self.islands or self.particles < 40 * self.islands:
            raise ParameterError(
                f"SMC needs at least 2 islands of at least 40 particles each, all of one size, not {self.particles} particles on "
                f"{self.islands}. Use particles={128 * max(self.islands, 2)}."
            )
        if not 0.1 <= self.keep <= 0.95 or min(self.moves, self.starts) < 1:
            raise ParameterError("SMC needs 0.1 <= keep <= 0.95, moves >= 1 and starts >= 1. Leave them out for the defaults.")

    def draw(self, setting):
        from hybridtwin.inference import smc

        return smc.draw(setting, self)

    def people_per_call(self) -> int:
        """One on a CPU: its lanes are many already, and people would wait for each other."""
        return 1 if jax.default_backend() == "cpu" else WIDE


@dataclasses.dataclass(frozen=True)
class Laplace(AbstractMethod):
    """A Gaussian at the best of several modes, on the unconstrained coordinates; `draws` from it.

    The verdict compares it with the posterior by importance weights: where they disagree, use `NUTS`.
    """

    draws: int = 1000
    starts: int = 8

    def __post_init__(self):
        if self.draws < 20 or self.starts < 1:
            raise ParameterError("Laplace needs draws >= 20 and starts >= 1. Leave them out for the defaults.")

    def draw(self, setting):
        from hybridtwin.inference import laplace

        return laplace.draw(setting, self)


@dataclasses.dataclass(frozen=True)
class FOCEI(AbstractMethod):
    """First-order conditional estimation with interaction (NONMEM's METHOD=1 INTER): the population that makes a cohort's
    readings likeliest, people's random effects integrated out around their conditional modes; then `draws` of everybody's own
    parameters given that population.

    `laplace`: the curvature of every reading is exact instead of expected (NONMEM's LAPLACIAN); readings that are censored or
    counted always enter so. `interaction=False`: the error is that of a person without effects (FOCE, NONMEM's METHOD=1);
    with `conditional=False` besides, readings are straight lines in the effects from there (FO, METHOD=0): for comparison
    with older reports, biased where effects are large. `rounds`: most steps of the search; 0 evaluates the objective at the
    start, the medians of the model's priors. Hyperpriors are starts only. Sources: Lindstrom and Bates 1990
    (doi:10.2307/2532087), Wang 2007 (doi:10.1007/s10928-007-9060-6).
    """

    draws: int = 500
    laplace: bool = False
    rounds: int = 100
    starts: int = 1
    conditional: bool = True
    interaction: bool = True

    def __post_init__(self):
        if self.interaction and not self.conditional:
            raise ParameterError("first order with interaction is not there. Give interaction=False besides for FO.")
        if self.draws < 20 or self.rounds < 0:
            raise ParameterError("FOCEI needs draws >= 20 and rounds >= 0. Leave them out for the defaults.")

    def draw(self, setting):
        raise ParameterError("FOCEI pools a cohort; for one person use ht.NUTS() or ht.Laplace().")
