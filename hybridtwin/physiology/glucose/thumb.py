"""Rules of thumb for people with type 1 diabetes: what a little sugar, or a unit of insulin, does to a body at rest."""

import numpy as np

from hybridtwin.physiology.reference import Reference
from hybridtwin.signals import Regimen


def rules_of_thumb(at_rest=lambda body: {}):
    """Both rules, as references of a system with `meal`, `bolus` and `G`. `at_rest`: body -> parameters of a day at rest."""

    def moved(lived, dose, amount, unit):
        """Largest change of glucose [mg/dL] by one dose at rest."""
        alone = lived.again(parameters=at_rest(lived.body), doses={dose: Regimen.bolus(amount, unit, at=0.0)})["G"]
        return np.abs(alone - alone[0]).max()

    return (
        Reference("rise of glucose by 20 g of carbohydrate alone, 70 kg", "mg/dL", (60.0, 100.0),
                  "Walsh and Roberts, Pumping Insulin, 6th edition: 3 to 5 mg/dL for each gram",
                  lambda lived: moved(lived, "meal", 20.0, "g")),
        Reference("fall of glucose by 1 U, total of about 45 U a day", "mg/dL", (25.0, 60.0),
                  "Davidson 2008, doi:10.4158/EP.14.9.1095: 1694 over the total of a day",
                  lambda lived: moved(lived, "bolus", 1.0, "[IU]")),
    )  # fmt: skip
