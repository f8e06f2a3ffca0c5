"""What the lessons stand on: numbers marked as measured here, tables that render alike everywhere, and expectations.

A lesson is tested by running it again and comparing every output exactly. Values that differ between machines
(accuracies, seconds, versions) therefore pass through `measured` or `table(…, measured=…)`, which mark them, and the
test blanks just the marks; `expect` checks such a value, with its tolerance, where it arises.
"""

from frozenkit.course.outputs import ExpectationError, Measured, Table, expect, measured, table

__all__ = ["ExpectationError", "Measured", "Table", "expect", "measured", "table"]
