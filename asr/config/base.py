"""What all options have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Base of all options: immutable, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


# Far above any use; a hostile file cannot ask for a model that takes hours to build.
Size = Annotated[int, Field(gt=0, le=65_536)]
