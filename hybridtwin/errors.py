"""Every error a user can meet, in one tree.

HybridTwinError
├── DeclarationError        a system, sensor or model is declared wrongly
├── UnitError               a unit is unknown, missing or does not fit
│   └── MissingUnit
├── ParameterError          a parameter lies outside its declared range, or is not one
├── RecordError             bad input data: carries person, row, column, reason, remedy
│   ├── MissingColumn
│   ├── NotANumber
│   ├── MissingValue
│   ├── ImplausibleValue
│   ├── TimeOrder           time goes back without a reset
│   ├── AmbiguousTime       a local time that occurs twice, never, or on no day of the record
│   ├── UnknownCompartment
│   ├── SplitId             one id in two blocks of a table
│   ├── EmptyRecord
│   └── NoReadings
├── InterventionError       what `do` was asked cannot be done
│   ├── UnknownTarget
│   ├── AmbiguousDose       a bare number for a dose: when?
│   └── PastHorizon
├── UnrelatedTwins          a contrast of twins that share no ancestry
├── SolveError              a simulation failed where a number was promised
├── NotIdentified           a number that needs a randomized treatment or an identified effect
└── NotTrustworthy          an answer was asked under a verdict that forbids it

Every message ends in a remedy.
"""


class HybridTwinError(Exception):
    """Base of every error raised on purpose by hybridtwin."""


class DeclarationError(HybridTwinError):
    """A system, sensor or model is declared wrongly."""


class UnitError(HybridTwinError):
    """A unit is unknown, missing, or does not fit where it is used."""


class MissingUnit(UnitError):
    """A quantity came without a unit."""


class ParameterError(HybridTwinError):
    """A parameter lies outside its declared range, or is not a parameter."""


class RecordError(HybridTwinError):
    """Bad input data.

    The message names person, row, column, reason and remedy; the same parts are attributes
    (None where they do not apply). `row` counts data rows from 1, as a spreadsheet without
    its header line does.
    """

    def __init__(self, reason, *, person=None, row=None, column=None, remedy=""):
        self.reason, self.person, self.row, self.column, self.remedy = reason, person, row, column, remedy
        where = [f"person {person!r}" if person is not None else "", f"row {row}" if row is not None else "",
                 f"column {column!r}" if column is not None else ""]
        head = ", ".join(part for part in where if part)
        message = f"{head}: {reason}" if head else str(reason)
        super().__init__(f"{message}. {remedy}" if remedy else message)


class MissingColumn(RecordError):
    """A column that the reader needs is not in the table."""


class NotANumber(RecordError):
    """A cell that must be a number is not one."""


class MissingValue(RecordError):
    """A value is missing (NaN, empty) where nothing may be missing."""


class ImplausibleValue(RecordError):
    """A value no living body has in that unit."""


class TimeOrder(RecordError):
    """Time goes back without a reset record."""


class AmbiguousTime(RecordError):
    """A local time that occurs twice, never, or on no day of the record."""


class UnknownCompartment(RecordError):
    """A dose into a compartment or input the system does not have."""


class SplitId(RecordError):
    """One id appears in two blocks of a table that are not adjacent."""


class EmptyRecord(RecordError):
    """A table or record without any row that can be used."""


class NoReadings(RecordError):
    """A record without readings for any sensor of the model."""


class InterventionError(HybridTwinError):
    """What `do` was asked cannot be done."""


class UnknownTarget(InterventionError):
    """`do` names something that is no input, parameter or state."""


class AmbiguousDose(InterventionError):
    """A bare number for a dose says how much but not when."""


class PastHorizon(InterventionError):
    """An intervention or question reaches past the end of the record or the system's horizon."""


class UnrelatedTwins(HybridTwinError):
    """A contrast of twins that share no ancestry: their draws cannot be paired."""


class SolveError(HybridTwinError):
    """A simulation failed where a number was promised."""


class NotTrustworthy(HybridTwinError):
    """An answer was asked under a verdict that forbids it."""


class NotIdentified(HybridTwinError):
    """A number was asked that only a randomized treatment or an identified effect supports."""
