import pytest

from harness.errors import UserError
from harness.train import processes


@pytest.mark.parametrize(
    "asked, wanted", [(None, "float32"), ("no", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")]
)
def test_the_number_format_is_the_one_that_accelerate_was_launched_with(monkeypatch, asked, wanted):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if asked is not None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    assert processes.launched_precision() == wanted


def test_a_number_format_that_is_not_trained_in_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(UserError, match="mixed precision fp8") as refusal:
        processes.launched_precision()
    assert "--precision bfloat16" in str(refusal.value.hint)
