"""The official configuration that a conversion is told."""

import pytest

from relvlm.convert.cli import read_config
from relvlm.errors import UserError


@pytest.mark.parametrize("name", ["config.yaml", "config.json"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "byte order mark"])
def test_numbers_are_those_of_json_in_either_form(name, mark, tmp_path):
    """The official files write 1e-4, which is text to YAML 1.1."""
    (tmp_path / name).write_bytes(mark + b'{"optimizer": {"lr": 1e-06}, "image_res": 224}')
    assert read_config(tmp_path / name) == {"optimizer": {"lr": 1e-06}, "image_res": 224}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_res: 224\nimage_res: 256\n", "'image_res' is given twice, in line 1 and in line 2"),
        ("- 1\n", r"expected sections, found \[1\]"),
        ("{", "not readable"),
        (None, "not readable: .*No such file"),
    ],
)
def test_what_is_no_configuration_is_named(text, message, tmp_path):
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=rf"(?s)config\.yaml: .*{message}"):
        read_config(path)
