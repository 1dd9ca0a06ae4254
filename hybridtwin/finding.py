"""What findings have in common: a table, which is their data frame, and a text, which is how they show themselves."""

from typing import Any


class Finding:
    """A result with `table` (a data frame) and `text` (plain language, the verdict before any number)."""

    table: Any
    text: Any

    def to_dataframe(self):
        """The same as `table`."""
        return self.table

    def __repr__(self):
        return self.text
