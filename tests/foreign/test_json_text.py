"""JSON bombs, and JSON that two readers would understand differently."""

import json

import pytest

from harness.foreign.json_text import loads


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"score": 1, "score": 0}', "'score' is there twice"),
        ("9" * 5000, "4300 digits"),
        ('{"a": NaN}', "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ('{"a": [1, 2', "delimiter"),
        (b"\xff\xfe{}", "codec"),
    ],
)
def test_what_breaks_or_splits_readers_is_a_value_error_that_says_so(text, fault):
    with pytest.raises(ValueError, match=fault):
        loads(text)


def test_sound_json_is_read_as_ever_and_keys_can_be_left_out():
    value = {"a": [1, 2.5, "x", None, True], "b": {"a": {}}}
    assert loads(json.dumps(value)) == loads(json.dumps(value).encode()) == value
    assert loads(json.dumps(value), without={"b"}) == {"a": value["a"]}
    assert loads("[NaN]", constants=True)[0] != loads("[1]")[0]
