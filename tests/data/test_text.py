import json

import pytest

from relvlm.data.text import Tokenizer, pre_caption, text_key
from relvlm.errors import UserError

VOCAB = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "cat",
    "dog",
    "play",
    "##ing",
    "##s",
    "on",
    "mat",
    "the",
]


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return Tokenizer(tmp_path / "vocab.txt")


@pytest.fixture(scope="module")
def bert(shared):
    return Tokenizer(shared / "data/bert_vocab/vocab.txt")


@pytest.fixture(scope="module")
def captions(shared):
    rows = json.loads((shared / "data/coco_cc/annotations/captions.json").read_text())["annotations"]
    return [row["caption"] for row in rows]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("A man's hat, (red)!", "a mans hat red"),
        ("black-and-white / photo", "black and white photo"),
        ("two  spaces\tkept  once\n", "two spaces\tkept once"),
        ("<PERSON> smiles", "person smiles"),
        ("...", ""),
    ],
)
def test_pre_caption_follows_the_official_rules(raw, clean):
    assert pre_caption(raw, 40) == clean


def test_pre_caption_keeps_the_first_words():
    assert pre_caption("one two three four", 2) == "one two"


def test_encode_equals_transformers_bert(bert, captions, shared):
    transformers = pytest.importorskip("transformers")
    reference = transformers.BertTokenizer.from_pretrained(shared / "data/bert_vocab")
    texts = [pre_caption(c, 40) for c in captions] + [
        "naïve café 東京 5£ e\u0301 a\x00b\u00a0c x\ty",
        "z" * 200,
    ]
    expected = reference(texts, max_length=36, truncation=True)["input_ids"]
    assert bert.encode(texts, 36, sep=True) == expected
    assert bert.vocab_size == reference.vocab_size


def test_encode_ends_in_sep_only_if_asked(tokenizer):
    assert tokenizer.encode(["the cat plays"], 10) == [[2, 12, 5, 7, 9]]
    assert tokenizer.encode(["the cat plays"], 10, sep=True) == [[2, 12, 5, 7, 9, 3]]


def test_truncated_texts_are_counted(tokenizer):
    texts = ["the cat", "the cat plays on the mat", "the dog plays on the mat"]
    encoded = tokenizer.encode(texts, 4, sep=True)
    assert [len(ids) for ids in encoded] == [4, 4, 4]
    assert all(ids[-1] == tokenizer.sep_id for ids in encoded)
    assert tokenizer.truncated == 2


def test_special_tokens_in_a_text_stay_text(tokenizer):
    assert tokenizer.mask_id not in tokenizer.encode(["[MASK] [SEP]"], 20)[0]


def test_vocab_without_special_tokens_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"vocab.txt: data.vocab: no \[PAD\]"):
        Tokenizer(tmp_path / "vocab.txt")
    with pytest.raises(UserError, match="no such file"):
        Tokenizer(tmp_path / "absent.txt")


def test_a_vocab_may_begin_with_a_byte_order_mark(tmp_path, tokenizer):
    (tmp_path / "marked.txt").write_bytes("\ufeff".encode() + "\r\n".join(VOCAB).encode())
    marked = Tokenizer(tmp_path / "marked.txt")
    assert marked.pad_id == tokenizer.pad_id and marked.vocab_size == tokenizer.vocab_size
    (tmp_path / "other.txt").write_bytes(b"\xff\xfe[\0")
    with pytest.raises(UserError, match=r"other\.txt: data\.vocab: not UTF-8"):
        Tokenizer(tmp_path / "other.txt")


def test_text_key_is_stable():
    assert text_key("a dog left of a cat") == -3926265676669569040
    assert text_key("a") != text_key("b")


def test_special_tokens_are_those_in_brackets_and_words_are_not(tmp_path):
    tokens = [*VOCAB, "[unused1]", "[x", "x]", "[]", "word"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens))
    special = Tokenizer(tmp_path / "vocab.txt").special_ids
    assert {tokens[i] for i in special} == {*VOCAB[:5], "[unused1]"}
