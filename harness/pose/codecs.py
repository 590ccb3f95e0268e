"""Codecs: crop transform, target encoder and flip shift bound as one, because mixing them silently costs AP.

A decoder is chosen apart from the codec, among those that read what the codec's networks write.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import UserError, unknown_name
from harness.pose.decoders import DECODERS

__all__ = ["CODECS", "Codec", "check_codec"]


@dataclass(frozen=True)
class Codec:
    """`udp`: crop and back-transform measure between outer pixel centres (`size - 1`), not by 3-point affine.

    `encoder` as in harness.pose.targets; `shift`: the mirrored map moves right by one column before it is
    averaged; `decoders` that read its maps, the published one first.
    """

    name: str
    udp: bool
    encoder: str
    shift: bool
    decoders: tuple[str, ...]

    @property
    def crop(self) -> str:
        """The crop transform's name."""
        return "udp" if self.udp else "affine"


CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        Codec("biased", False, "msra", True, ("quarter", "argmax", "dark", "megvii", "soft_argmax")),
        Codec("unbiased", False, "unbiased", True, ("dark", "quarter", "argmax", "soft_argmax")),
        Codec("udp", True, "udp", False, ("udp_dark", "dark", "quarter", "argmax", "soft_argmax")),
        Codec("udp_combined", True, "udp_combined", False, ("udp_combined",)),
        Codec("simcc", False, "simcc", False, ("simcc",)),
    )
}

_NOT_THESE_MAPS = {
    "udp_combined": "its maps are discs with offsets, three channels a joint, not one Gaussian",
    "simcc": "it writes two vectors of bins a joint, not a map",
}
_NEEDS = {
    "udp_dark": "it has no border rule and reads maps of the UDP crop; dark is the same step for this crop",
    "megvii": "it adds the half pixel that its truncating encoder takes away; these maps are not truncated",
    "udp_combined": "it reads three channels a joint (class, dx, dy); these maps have one",
    "simcc": "it reads two vectors of bins a joint; these are maps",
}


def check_codec(codec: str, decoder: str) -> Codec:
    """The codec, if `decoder` goes with it; else, or if either is unknown, UserError with the reason."""
    for kind, name, known in (("codec", codec, tuple(CODECS)), ("decoder", decoder, DECODERS)):
        if name not in known:
            what, hint = unknown_name(kind, name, known)
            raise UserError(what, hint=hint)
    found = CODECS[codec]
    if decoder not in found.decoders:
        reason = _NOT_THESE_MAPS.get(codec) or _NEEDS[decoder]
        raise UserError(
            f"decoder {decoder} does not go with codec {codec}: {reason}",
            expected=" or ".join(found.decoders),
        )
    return found
