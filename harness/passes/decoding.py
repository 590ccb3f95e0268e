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

    @classmethod
    def of(cls, protocol: PoseProtocol) -> Decoding:
        """The decoding of a protocol; a kernel size that the decoder ignores does not tell two apart."""
        blurs = protocol.decoder in ("dark", "udp_dark", "udp_combined", "megvii")
        return cls(protocol.decoder, protocol.dialect, protocol.blur_kernel if blurs else 0)

    @property
    def name(self) -> str:
        return f"{self.decoder}-{self.dialect}-{self.blur_kernel}"
