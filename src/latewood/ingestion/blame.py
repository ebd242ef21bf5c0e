"""Which row is to blame: a batch that was refused, halved until one row is left.

Whatever a check objects to in a batch, it objects to in one of its rows; so the message that is shown comes from checking
the first bad row alone, and its place in the file is known. Costs nothing unless something is wrong.
"""

import re

import pyarrow as pa

from latewood.columns import TraitColumn, null_column
from latewood.errors import SchemaError
from latewood.files import FileRows
from latewood.ingestion.mapping import EventMapping
from latewood.intake import check_text, read_events
from latewood.schema import Schema, Trait

_ONLY_ROW = re.compile(r",? (in )?row 0\b")


def check(table: pa.Table, mapping: EventMapping, schema: Schema) -> None:
    """All that loading these rows would refuse, without coding anything. Raises: SchemaError."""
    intake = read_events(mapping.apply(table), schema, _without_codes, corrections=False)
    mapping.marked(table, intake.events)


def blame(error: SchemaError, rows: FileRows, mapping: EventMapping, schema: Schema) -> SchemaError:
    """The error of a batch as one that names the file and the row, or the file where no row is better than another."""
    if _objection(rows.table.slice(0, 0), mapping, schema):
        return SchemaError(f"{rows.path}: {mapping.in_its_words(str(error))}")
    start, stop = 0, len(rows.table)  # there is a bad row here, and none before
    while stop - start > 1:
        middle = (start + stop) // 2
        if _objection(rows.table.slice(start, middle - start), mapping, schema):
            stop = middle
        else:
            start = middle
    reason = _objection(rows.table.slice(start, 1), mapping, schema)
    if reason is None:  # it takes several rows together to be wrong
        return SchemaError(f"{rows.path}, in the rows from {rows.first:,} on: {mapping.in_its_words(str(error))}")
    return SchemaError(f"{rows.path}, row {rows.first + start:,}: {mapping.in_its_words(_ONLY_ROW.sub('', reason))}")


def _objection(table: pa.Table, mapping: EventMapping, schema: Schema) -> str | None:
    try:
        check(table, mapping, schema)
    except SchemaError as error:
        return str(error)
    return None


def _without_codes(trait: Trait, array: pa.Array) -> TraitColumn:
    """What coding a column would refuse: text that is not UTF-8."""
    check_text(array, trait.name)
    return null_column(trait, len(array))
