from __future__ import annotations

import pytest

from harness.errors import UserError
from harness.pose.codecs import CODECS, check_codec, check_targets
from harness.pose.decoders import DECODERS
from harness.pose.targets import ENCODERS


def test_every_decoder_and_every_encoder_belongs_to_a_codec():
    # megvii's pair is there for those who decode with it; no network here is trained on its targets
    assert {d for codec in CODECS.values() for d in codec.decoders} == set(DECODERS) - {"megvii"}
    assert {codec.encoder for codec in CODECS.values()} == set(ENCODERS) - {"megvii"}


def test_udp_codecs_never_shift_the_mirrored_map():
    assert not any(codec.shift and codec.udp for codec in CODECS.values())
    assert CODECS["biased"].shift and not CODECS["udp"].shift


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_decoder_is_admitted_or_refused_with_a_reason(codec, decoder):
    if decoder in CODECS[codec].decoders:
        assert check_codec(codec, decoder) is CODECS[codec]
        return
    with pytest.raises(UserError) as caught:
        check_codec(codec, decoder)
    reason = str(caught.value).split(f"does not go with codec {codec}: ")[1]
    assert len(reason) > 30 and CODECS[codec].decoders[0] in reason


def test_unknown_names_suggest_near_ones():
    with pytest.raises(UserError, match="unknown codec 'unbiasd'"):
        check_codec("unbiasd", "dark")
    with pytest.raises(UserError) as caught:
        check_codec("biased", "drak")
    assert "dark" in str(caught.value)


@pytest.mark.parametrize(
    ("encoder", "codec", "loss", "reason"),
    [
        ("simcc", "biased", None, "two vectors of bins a joint, its networks write one map"),
        ("udp_combined", "udp", None, "three channels a joint"),
        ("msra", "simcc", None, "its networks write two vectors"),
        ("msra", "udp", None, "placed for the plain crop"),
        ("udp", "unbiased", None, "placed for the UDP crop"),
        ("unbiased", "unbiased", "focal", "exactly 1"),
        ("udp", "udp", "focal", "exactly 1"),
        ("megvii", "biased", "rce_soft", "reach 255"),
        ("mrsa", "biased", None, "unknown target encoder"),
    ],
)
def test_targets_that_a_network_cannot_learn_are_refused_with_the_reason(encoder, codec, loss, reason):
    with pytest.raises(UserError, match=reason):
        check_targets(encoder, codec, loss)


@pytest.mark.parametrize(
    ("encoder", "codec", "loss"),
    [("msra", "biased", "focal"), ("unbiased", "biased", "bce"), ("msra", "unbiased", None), ("udp", "udp", "mse"),
     ("megvii", "biased", "mse_half")],
)  # fmt: skip
def test_targets_of_the_same_crop_and_kind_are_interchangeable(encoder, codec, loss):
    check_targets(encoder, codec, loss)
