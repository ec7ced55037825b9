"""The base class of all options, and bounded number types that a hostile file cannot abuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from asr.files import Place, to_place


class Config(BaseModel):
    """Base of all options: immutable, and strict about unknown keys; every number is finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_no_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        """Reject true and false as numbers: for pydantic, they are 1 and 0."""
        assert info.field_name is not None
        kinds = list(_kinds_of(cls.model_fields[info.field_name].annotation))
        if (int in kinds or float in kinds) and bool not in kinds:
            for given in _booleans_in(value):
                raise ValueError(f"must be a number, not {str(given).lower()}")
        return value

    def changed(self, name: str) -> bool:
        """Return whether an option differs from its default."""
        return bool(getattr(self, name) != type(self).model_fields[name].default)


def _kinds_of(annotation: Any) -> Iterator[Any]:
    """Give the plain types in an annotation: int, int and None in tuple[int, int] | None."""
    parts = get_args(annotation)
    if not parts:
        yield annotation
    for part in parts[:1] if get_origin(annotation) is Annotated else parts:
        yield from _kinds_of(part)


def _booleans_in(value: Any) -> Iterator[bool]:
    if isinstance(value, bool):
        yield value
    elif isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _booleans_in(part)


def _location(value: Any) -> Place:
    if not isinstance(value, str | Path) and not hasattr(value, "joinpath"):
        raise ValueError("must be a path or a URL")
    return to_place(value)


if TYPE_CHECKING:
    Location = Place
else:
    Location = Annotated[
        Any,
        PlainValidator(_location),
        PlainSerializer(str, when_used="json"),
        WithJsonSchema({"type": "string", "format": "path"}),
    ]

# Bounds far above any use, so that a hostile file cannot ask for a model that takes hours to build.
Size = Annotated[int, Field(gt=0, le=65_536)]
Rate = Annotated[int, Field(ge=1000, le=384_000)]
Layers = Annotated[int, Field(ge=0, le=256)]


def by_kind(default: str) -> Discriminator:
    """Return a discriminator of a union by `kind`, which may be left out for `default`."""

    def kind(value: Any) -> str:
        found = value.get("kind", default) if isinstance(value, dict) else getattr(value, "kind", default)
        return str(found)

    return Discriminator(kind)
