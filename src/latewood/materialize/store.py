"""What a materializer needs of a store."""

from typing import Protocol

from latewood.errors import SchemaError, refuse_path
from latewood.immutable import GenerationReader, Scrubs
from latewood.projection import Projection
from latewood.schema import Schema
from latewood.vocabulary import Vocabulary


class MaterializeStore(Protocol):
    """What a materializer needs of a store."""

    epoch: bytes
    vocabulary: Vocabulary
    scrubs: Scrubs

    @property
    def schema(self) -> Schema:
        """Of the generation that reads are answered from."""

    def reader(self) -> GenerationReader:
        """The newest generation known, opened."""

    def refresh(self) -> GenerationReader:
        """Look for a newer one."""


def schema_for(store: MaterializeStore, projection: Projection) -> Schema:
    """The schema that is known, or that of a newer generation if the projection does not fit it."""
    known = store.schema
    try:
        projection.needs(known)
    except SchemaError:
        return store.refresh().generation.schema
    return known


def require_store(store: object, projection: object) -> None:
    """Raises: SchemaError: one of the two is something else, such as the path of a store."""
    refuse_path(store, read_only=True)
    if not isinstance(projection, Projection):
        raise SchemaError(f"what to see of a history is an lw.Projection, not {projection!r}")
