"""A manifest that was edited, or that another program wrote, is one error before any sample is read."""

import json

import pytest
from support.shards import write_toys

from relvlm.data.shards.store import ShardSet
from relvlm.errors import UserError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(shards={}), "shards: no list"),
        (lambda m: m["shards"].append("000002.tar"), r"shards\[2\]: '000002.tar' is no JSON object"),
        (lambda m: m["shards"].append(m["shards"][0]), "000000.tar is listed twice"),
        (lambda m: m["shards"][0].update(samples="2"), r"shards\[0\].samples: '2' is no count"),
        (lambda m: m["shards"][0].update(samples=-2), r"shards\[0\].samples: -2 is no count"),
        (lambda m: m["shards"][0].update(bytes=1.5), r"shards\[0\].bytes: 1.5 is no count"),
        (lambda m: m["shards"][0].update(sha256=None), r"shards\[0\].sha256: None is no text"),
        (lambda m: m["shards"][0].update(name=7), r"shards\[0\].name: 7 is no text"),
        (lambda m: m["shards"][0].update(extra=7), r"shards\[0\]: .*extra"),
        (lambda m: m["shards"][0].pop("bytes"), r"shards\[0\]: .*bytes"),
        (lambda m: m["shards"].pop(), r"totals.samples: 4, its shards hold 2 \(edited\?"),
        (lambda m: m.update(totals=[]), r"totals: \[\] is no dict"),
        (lambda m: m.update(source=3), "source: 3 is no str"),
        (lambda m: m.update(schema=True), "schema: True"),
        (lambda m: m.update(schema="1"), "schema: '1'"),
    ],
)
def test_an_edited_manifest_is_one_error(tmp_path, change, message):
    file = write_toys(tmp_path / "set", 4, shard_size=2) / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=message):
        ShardSet(tmp_path / "set")
