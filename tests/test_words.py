"""Numbers in sentences."""

import numpy as np
import pytest

from harness.words import counted


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "pass", "1 pass"), (2, "pass", "2 passes"), (0, "image", "0 images"), (np.int64(1), "image", "1 image"),
        (3, "box", "3 boxes"), ("?", "person", "? persons"),
    ],
)  # fmt: skip
def test_one_is_singular_and_everything_else_is_not(count, noun, text):
    assert counted(count, noun) == text
