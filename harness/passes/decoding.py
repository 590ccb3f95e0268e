"""One way to read a heatmap, and the name under which a pass keeps what it gave. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from harness.method import PoseProtocol

__all__ = ["Decoding"]


@dataclass(frozen=True)
class Decoding:
    """One way to read a heatmap."""

    decoder: str
    dialect: str
    blur_kernel: int
    beta: float = 1.0

    @classmethod
    def of(cls, protocol: PoseProtocol) -> Decoding:
        """The decoding of a protocol; what the decoder ignores does not tell two apart."""
        blurs = protocol.decoder in ("dark", "udp_dark", "udp_combined")
        beta = protocol.beta if protocol.decoder == "soft_argmax" else 1.0
        return cls(protocol.decoder, protocol.dialect, protocol.blur_kernel if blurs else 0, beta)

    @property
    def name(self) -> str:
        softness = f"-{self.beta:g}" if self.decoder == "soft_argmax" else ""
        return f"{self.decoder}-{self.dialect}-{self.blur_kernel}{softness}"
