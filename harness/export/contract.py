"""What a method tells the export about itself, and what an exported file tells whoever opens it. Torch-free.

A network with one exit and no trace is exported as it is. One whose forward looks at what it sees is a graph no more,
but it may consist of some: its method `export_parts(settings) -> Sequence[ExportPart]` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import WeightsError
from harness.method import PoseProtocol, Size
from harness.provenance import file_sha256

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import Tensor, nn

__all__ = ["BATCH", "METADATA", "ExportPart", "Origin"]

METADATA = "paretopose"
"""the key of an exported file's metadata under which its `Origin` stands as JSON"""
BATCH = "batch"
"""the name of the first axis of every input and output"""


@dataclass(frozen=True)
class ExportPart:
    """One static graph. `module(*inputs)` gives the tensors named in `outputs`; the first axis of all is the batch.

    `name`: '' where the network is a single graph. `example(batch)`: inputs by name, random and of the right kind.
    `open_axes`: further axes of inputs that any size fits, {"kept": {1: "regions"}}. `facts`: plain values that code
    around the parts needs; the file holds them. `used_by`: the file, relative to the project, that joins the parts.
    """

    name: str
    module: nn.Module
    example: Callable[[int], dict[str, Tensor]]
    outputs: tuple[str, ...]
    open_axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    used_by: str = ""


class Origin(BaseModel):
    """Where an exported file comes from: all that its graph does not say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(1, ge=1, le=1)
    variant: str = Field(pattern=r"^[A-Za-z0-9_.+-]{1,80}$")
    part: str = Field("", pattern=r"^[a-z0-9_]{0,40}$")
    input_size: Size
    num_joints: int = Field(ge=1)
    knobs: dict[str, Any] = Field(default_factory=dict)
    protocol: dict[str, Any]
    """the fields by which the network is run"""
    weights: str = Field(pattern=r"^([0-9a-f]{64}|)$")
    """SHA-256 of the weights file; empty: random weights"""
    companions: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the files that the later parts are in"""
    facts: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of(cls, model: ModelProto, where: str) -> Origin | None:
        """What the file says of itself, None where this project did not export it. WeightsError for metadata that
        cannot be read, or a protocol that does not exist."""
        text = next((entry.value for entry in model.metadata_props if entry.key == METADATA), None)
        if text is None:
            return None
        try:
            origin = cls.model_validate_json(text)
            PoseProtocol.model_validate(origin.protocol)
        except ValidationError as error:
            fault = error.errors()[0]
            raise WeightsError(
                f"its metadata '{METADATA}' cannot be read: {'.'.join(map(str, fault['loc']))}: {fault['msg']}",
                where=where,
                expected="what `paretopose export` of this version writes",
                hint="export it again, or remove the entry",
            ) from None
        return origin

    def is_companion(self, part: str, file: Path) -> bool:
        """`file` is the one that was exported together with this one and holds `part`."""
        return file_sha256(file) == self.companions.get(part)

    def text(self) -> str:
        """One sentence for people."""
        weights = f"weights {self.weights[:12]}" if self.weights else "random weights"
        part = f", part {self.part}" if self.part else ""
        made = f"paretopose {self.versions.get('paretopose', '?')} with torch {self.versions.get('torch', '?')}"
        return f"exported from {self.variant}{part} ({weights}) by {made}"
