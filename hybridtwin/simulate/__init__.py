"""From inputs to outputs: the mesh of a record, steppers, and the verb `simulate`.

The folder and the verb share a name. Python binds `hybridtwin.simulate` to this package as soon as anything in it is
imported, so the package itself can be called: `ht.simulate(system, person)` means the verb in either case.
"""

import sys
from types import ModuleType


class _Verb(ModuleType):
    """A package that is callable as `hybridtwin.simulate.verb.simulate`."""

    def __call__(self, system, person, **options):
        """See `hybridtwin.simulate.verb.simulate`."""
        from hybridtwin.simulate.verb import simulate

        return simulate(system, person, **options)


sys.modules[__name__].__class__ = _Verb
