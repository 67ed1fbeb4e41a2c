"""Ranges and defaults of `data.cache`."""

from support.limits import limits

from relvlm.config.cache import CacheConfig
from relvlm.config.tree import build


def test_limits_stay_as_they_are():
    assert limits("data.cache.") == {
        "not empty; ~ and $VAR are expanded": "data.cache.folder",
        "above 0 and at most 1,000,000": "data.cache.max_gb",
        "at least 1 and at most 100": "data.cache.tries",
    }


def test_it_holds_100_gb_by_default():
    assert (CacheConfig().max_gb, CacheConfig().tries) == (100.0, 5)


def test_a_folder_is_a_path(monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/ann")
    assert build(CacheConfig, {"folder": "$SCRATCH/shards"}, "a.yaml", "").folder == "/scratch/ann/shards"
