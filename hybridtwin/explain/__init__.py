"""What an outcome rests on: parameters, doses, signals, stretches of time, readings, paths and learned terms.

The folder and the verb share a name, as `simulate` does: the package itself can be called, `ht.explain(twin, outcome)`.
"""

import sys
from types import ModuleType


class _Verb(ModuleType):
    """A package that is callable as `hybridtwin.explain.explanation.explain`."""

    def __call__(self, twin, outcome, **options):
        """See `hybridtwin.explain.explanation.explain`."""
        from hybridtwin.explain.explanation import explain

        return explain(twin, outcome, **options)


sys.modules[__name__].__class__ = _Verb
