"""The DeepSpeed config: what it may say, and the default."""

from pathlib import Path

import pytest

from relvlm.engine import distributed
from relvlm.errors import UserError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no readable DeepSpeed config"),
        ("[]", "no DeepSpeed config: expected sections"),
        ('{"zero_optimization": 1}', "no DeepSpeed config: expected sections"),
        ('{"zero_optimization": {"stage": 4}}', "zero_optimization.stage: 4 is none of 0, 1, 2, 3"),
        ('{"zero_optimization": {"stage": true}}', "zero_optimization.stage: True is none of"),
        ('{"a": 1, "a": 2}', "no readable DeepSpeed config: 'a' is given twice"),
        ('{"bf16": {"enabled": true}}', "bf16: is decided by the relvlm config"),
        ('{"optimizer": {}}', "optimizer: is decided by the relvlm config"),
        (
            '{"gradient_accumulation_steps": 4}',
            "gradient_accumulation_steps: is decided by the relvlm config",
        ),
    ],
)
def test_a_deepspeed_config_that_contradicts_ours_is_refused(tmp_path, text, message):
    path = tmp_path / "deepspeed.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        distributed.read_deepspeed_config(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_the_deepspeed_config_may_be_left_out():
    zero1 = Path(__file__).parents[2] / "configs/deepspeed/zero1.json"
    assert distributed.read_deepspeed_config(None) == distributed.read_deepspeed_config(zero1)


def test_a_deepspeed_config_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "deepspeed.json").write_bytes(b"\xff\xfe\x00")
    for name in ("deepspeed.json", "gone.json", "."):
        with pytest.raises(UserError, match="no readable DeepSpeed config"):
            distributed.read_deepspeed_config(tmp_path / name)
