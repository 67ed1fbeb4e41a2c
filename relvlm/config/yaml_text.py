"""YAML whose numbers are those of JSON and of YAML 1.2, and whose keys are given once.

PyYAML reads YAML 1.1, in which `1e-06` is a string, `010` is eight, `1:30` is ninety, and a key given twice loses the
first; all of them silently.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_INT = re.compile(r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(
    r"""[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)""",
    re.VERBOSE,
)
_OTHER_RULES = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"}
_MERGE = "tag:yaml.org,2002:merge"


class Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, with both lines."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else []:
            if key_node.tag == _MERGE:
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, f"line {line}: a key must be a word")
            if key in lines:
                message = f"{key!r} is given twice, in line {lines[key]} and in line {line} (remove one)"
                raise yaml.constructor.ConstructorError(None, None, message)
            lines[key] = line
        return super().construct_mapping(node, deep)

    def read_int(self, node: Any) -> int:
        """`010` is ten, as in YAML 1.2."""
        text = self.construct_scalar(node).replace("_", "")
        return int(text, {"0x": 16, "0o": 8}.get(text[:2].lower(), 10))

    def read_str(self, node: Any) -> str:
        """JSON writes one character beyond the first 65,536 as a pair of escapes."""
        try:
            return self.construct_scalar(node).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as error:
            raise yaml.constructor.ConstructorError(None, None, "half a character", node.start_mark) from error


class Dumper(yaml.SafeDumper):
    """Quotes the strings that the Loader would take for numbers."""


for _kind in (Loader, Dumper):
    _kept = {
        first: [(tag, rule) for tag, rule in rules if tag not in _OTHER_RULES]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _kind.yaml_implicit_resolvers = _kept
    for _tag, _rule, _first in (("float", _FLOAT, "-+0123456789."), ("int", _INT, "-+0123456789")):
        _whole = re.compile(rf"(?:{_rule.pattern})\Z", _rule.flags)
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, list(_first))
Loader.add_constructor("tag:yaml.org,2002:int", Loader.read_int)
Loader.add_constructor("tag:yaml.org,2002:str", Loader.read_str)


def read(text: str | bytes) -> Any:
    """The value of a YAML (or JSON) text; raises yaml.YAMLError."""
    return yaml.load(text, Loader)


def write(value: Any) -> str:
    """The YAML of a value, its keys in their order."""
    return yaml.dump(value, Dumper=Dumper, sort_keys=False)
