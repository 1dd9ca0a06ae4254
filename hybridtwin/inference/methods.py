"""Ways to personalize, as instances: `ht.personalize(model, person, ht.NUTS(draws=500), key=0)`."""

import dataclasses

from hybridtwin.errors import ParameterError


@dataclasses.dataclass(frozen=True)
class NUTS:
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


@dataclasses.dataclass(frozen=True)
class Laplace:
    """A Gaussian at the best of several modes, on the unconstrained coordinates; `draws` from it.

    The verdict compares it with the posterior by importance weights: where they disagree, use `NUTS`.
    """

    draws: int = 1000
    starts: int = 8

    def __post_init__(self):
        if self.draws < 20 or self.starts < 1:
            raise ParameterError("Laplace needs draws >= 20 and starts >= 1. Leave them out for the defaults.")
