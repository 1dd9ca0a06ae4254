"""Twins of a cohort by id, and what the whole cohort is asked to do."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hybridtwin.twin import Twin


class Twins(Mapping):
    """Twins of a cohort by id: `twins["anna"]`. `population`: what they have in common, where the model pools them."""

    def __init__(self, twins: Mapping[str, "Twin"], population: Any = None):
        self._twins, self.population = dict(twins), population

    def __getitem__(self, person: str) -> "Twin":
        return self._twins[person]

    def __iter__(self):
        return iter(self._twins)

    def __len__(self):
        return len(self._twins)

    def do(self, **how) -> "Twins":
        """Everybody with the same done, as in `Twin.do`: functions of the lived doses or parameters, regimens, rules of care.

        Clock text is each person's own; bare times count in each record's unit. Errors: those of `Twin.do`.
        """
        return Twins({name: twin.do(**how) for name, twin in self.items()}, self.population)

    def on(self, record, start=None) -> "Twins":
        """Everybody on another day: one record for all, or id -> record, as in `Twin.on`."""
        records = record if isinstance(record, Mapping) else dict.fromkeys(self, record)
        return Twins({name: twin.on(records[name], start) for name, twin in self.items()}, self.population)

    def summary(self):
        """Every person's parameters, with a column `person`."""
        import pandas as pd

        return pd.concat([twin.summary().assign(person=name) for name, twin in self.items()], ignore_index=True)

    def to_dataframe(self):
        """The same as `summary`."""
        return self.summary()

    def plot(self):
        """Everybody's parameters side by side; a matplotlib figure."""
        from hybridtwin import plots

        return plots.people(self)

    def modes(self, structure: int = 0):
        """The posterior mode of everybody (see `Twin.mode`): a data frame, one row a person, one column a number."""
        import pandas as pd

        names = next(iter(self.values())).fits[structure].names
        rows = {i: [x for v in twin.mode(structure).values() for x in np.ravel(v)] for i, twin in self.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=list(names)).rename_axis("person")

    def __repr__(self):
        levels = [twin.verdict.headline for twin in self.values()]
        told = ", ".join(f"{levels.count(level)} {level}" for level in dict.fromkeys(levels))
        return f"Twins of {len(self)} people: {told}\n  {', '.join(list(self)[:20])}{' ...' if len(self) > 20 else ''}"
