"""Codecs: crop transform, target encoder and flip shift bound as one, because mixing them silently costs AP.

A decoder is chosen apart from the codec, among those that read what the codec's networks write.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import UserError, unknown_name
from harness.pose.decoders import DECODERS
from harness.pose.targets import ENCODERS

__all__ = ["CODECS", "Codec", "check_codec", "check_targets"]


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
        Codec("biased", False, "msra", True, ("quarter", "argmax", "dark", "soft_argmax")),
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


_ENCODES = {"udp_combined": "three channels a joint (class, dx, dy)", "simcc": "two vectors of bins a joint"}
_FOR_UDP = ("udp", "udp_combined")
_ZERO_TO_ONE = ("bce", "rce_soft", "rce_kl", "rce_abs", "rce_qfl", "focal")


def check_targets(encoder: str, codec: str, loss: str | None = None) -> None:
    """UserError, with the reason, where a network of `codec` cannot be trained on targets of `encoder` with `loss`
    (None: a squared error)."""
    if encoder not in ENCODERS:
        what, hint = unknown_name("target encoder", encoder, ENCODERS)
        raise UserError(what, hint=hint)
    together = f"targets '{encoder}' do not go with"
    if _ENCODES.get(encoder) != _ENCODES.get(codec):
        ours, theirs = (_ENCODES.get(name, "one map a joint") for name in (encoder, codec))
        raise UserError(
            f"{together} codec '{codec}': they are {ours}, its networks write {theirs}",
            expected=f"the codec's own encoder, {CODECS[codec].encoder}",
        )
    if (encoder in _FOR_UDP) != CODECS[codec].udp:
        crop = "UDP" if encoder in _FOR_UDP else "plain"
        raise UserError(
            f"{together} codec '{codec}': they are placed for the {crop} crop, and the codec crops the other way, "
            "which would shift every joint",
            expected=f"the codec's own encoder, {CODECS[codec].encoder}",
        )
    if loss == "focal" and encoder != "msra":
        reason = "its positives are pixels whose target is exactly 1, which only targets rounded to a pixel have"
        raise UserError(f"{together} loss '{loss}': {reason}", expected="target.encoder=msra, or another loss")
    if loss in _ZERO_TO_ONE and encoder == "megvii":
        reason = "it reads targets as probabilities, and these reach 255"
        raise UserError(f"{together} loss '{loss}': {reason}", expected="another encoder, or a squared error")
