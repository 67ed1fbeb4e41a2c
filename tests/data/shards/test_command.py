"""What a command writes, as a stream, and as the files of a shard set."""

import shutil

import pytest
from support.shards import toy_sample, write_toys

from relvlm.config.cache import CacheConfig
from relvlm.data.shards import fetching
from relvlm.data.shards.command import CommandOutput
from relvlm.data.shards.store import ShardSet
from relvlm.errors import UserError


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE_S", 0.0)


def parts(command, size):
    output = CommandOutput(command)
    found = list(iter(lambda: output.read(size), b""))
    output.close()
    return found


def test_the_output_comes_in_parts_and_ends():
    assert parts("printf abcdefg | cat", 3) == [b"abc", b"def", b"g"]
    assert parts("printf abcdef", 3) == [b"abc", b"def"]
    assert parts("true", 3) == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("printf abc; echo 'first\nno such host' >&2; exit 3", "exit status 3: no such host"),
        ("exit 4", "exit status 4: nothing was said"),
        ("kill -9 $$", "exit status -9"),
    ],
)
def test_a_command_that_fails_is_an_error_with_its_last_words(command, said):
    with pytest.raises(OSError, match=said):
        parts(command, 100)


def test_a_command_that_goes_on_is_ended_with_all_of_its_pipeline(tmp_path):
    output = CommandOutput("(while echo x; do :; done; touch went_on) | cat")
    assert output.read(2) == b"x\n"
    output.close()
    assert output._process.returncode is not None and not list(tmp_path.iterdir())


def test_a_set_behind_a_command_is_that_of_its_folder(tmp_path):
    folder = write_toys(tmp_path / "a folder", 7)
    shards = ShardSet(f"pipe:cat '{folder}'/{{}}", CacheConfig(str(tmp_path / "cache"), tries=2))
    here = ShardSet(folder)
    assert [shards.read(i) for i in (6, 0, 3)] == [here.read(i) for i in (6, 0, 3)]
    assert shards.verify() == []
    shutil.rmtree(folder)
    assert shards.read(5).sample == toy_sample(5)


def test_what_a_command_cuts_short_is_asked_for_again(tmp_path):
    """The first time that a tar is asked for, half of it comes, and status 0."""
    folder = write_toys(tmp_path / "set", 7)
    script = tmp_path / "fetch.sh"
    script.write_text(
        f'case $1 in *.tar) if mkdir {tmp_path}/asked_$1 2>/dev/null; then head -c 3000 "{folder}/$1"; exit 0; fi;; '
        f'esac\ncat "{folder}/$1"\n'
    )
    shards = ShardSet(f"pipe:sh {script} {{}}", CacheConfig(str(tmp_path / "cache"), tries=2))
    assert [shards.read(i).sample for i in range(7)] == [toy_sample(i) for i in range(7)]
    assert len(list(tmp_path.glob("asked_*"))) == 3


def test_a_command_that_never_succeeds_is_one_error(tmp_path):
    with pytest.raises(
        UserError, match=r"cannot be fetched, 2 tries; the last: OSError: exit status 1: cat: .*No such"
    ):
        ShardSet(f"pipe:cat {tmp_path}/none/{{}}", CacheConfig(str(tmp_path / "cache"), tries=2))
