"""What is behind an address, as a setting."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trivium.generation.endpoint import shown_address


def check_address(address: str) -> str:
    """An http(s) address. Raises :class:`ValueError` for anything else."""
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"{shown_address(address)!r} is no http(s) address")
    if shown_address(address) != address:
        raise ValueError(f"{shown_address(address)} is given with a name and a password, which would stand in "
                         "manifests; keep them out, and name the variable that holds the key under `key_variable`")
    return address


class AddressSettings(BaseModel):
    """An address, and how often and how patiently it is asked."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    address: str
    """Such as http://127.0.0.1:8000/v1."""
    key_variable: str = ""
    """The environment variable that holds the key; the key itself belongs in no recipe."""
    tries: int = Field(6, ge=1)
    """Attempts at each question; between them the pause doubles."""
    pause: float = Field(1.0, ge=0)
    """Seconds before the second attempt."""
    timeout: float = Field(60.0, gt=0)
    """Seconds to wait for an answer."""
    workers: int = Field(8, ge=1)
    """Questions that are asked at a time."""

    @model_validator(mode="after")
    def _an_address(self) -> Self:
        check_address(self.address)
        return self


class EndpointSettings(AddressSettings):
    """A model behind an OpenAI-compatible address."""

    model: str
    """The name it knows the model by."""
