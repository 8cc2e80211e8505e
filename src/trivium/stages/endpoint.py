"""A model behind an address, as a setting."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class EndpointSettings(BaseModel):
    """A model behind an OpenAI-compatible address."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    address: str
    """Such as http://127.0.0.1:8000/v1."""
    model: str
    """The name it knows the model by."""
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
    def _an_address(self) -> EndpointSettings:
        if not self.address.startswith(("http://", "https://")):
            raise ValueError(f"{self.address!r} is no http(s) address")
        return self
