import json
from random import Random

import pytest

from relvlm.data.text import Tokenizer, mask_words, pre_caption, text_key
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


def test_masking_takes_whole_words(tokenizer):
    (ids,) = tokenizer.encode(["playing dogs plays"], 20, sep=True)  # [CLS] play ing dog s play s [SEP]
    for seed in range(50):
        masked, positions, labels = mask_words(ids, Random(seed), 0.4, tokenizer)
        assert positions in ([1, 2], [3, 4], [5, 6])
        assert labels == [ids[p] for p in positions]
        assert [m for p, m in enumerate(masked) if p not in positions] == [
            i for p, i in enumerate(ids) if p not in positions
        ]


def test_masking_takes_at_least_one_word_and_no_special_token(tokenizer):
    ids = [tokenizer.cls_id, 5, tokenizer.sep_id]
    assert mask_words(ids, Random(0), 0.0, tokenizer)[1] == [1]
    only_special = [tokenizer.cls_id, tokenizer.unk_id, tokenizer.sep_id]
    assert mask_words(only_special, Random(0), 1.0, tokenizer) == (only_special, [], [])


def test_masking_respects_max_masks(tokenizer):
    (ids,) = tokenizer.encode(["the cat on the mat " * 6], 60)
    assert len(mask_words(ids, Random(0), 0.5, tokenizer, max_masks=3)[1]) == 3


def test_masking_rates(bert, captions):
    rng, kept, masked, total, words = Random(0), 0, 0, 0, 0
    for ids in bert.encode([pre_caption(c, 40) for c in captions], 36, sep=True) * 4:
        after, positions, labels = mask_words(ids, rng, 0.25, bert)
        assert not bert.special_ids.intersection(labels)
        total += len(positions)
        words += len(ids) - 2
        masked += sum(after[p] == bert.mask_id for p in positions)
        kept += sum(after[p] == ids[p] for p in positions)
    assert total / words == pytest.approx(0.25, abs=0.02)
    assert masked / total == pytest.approx(0.8, abs=0.02)
    assert kept / total == pytest.approx(0.1, abs=0.015)


def test_text_key_is_stable():
    assert text_key("a dog left of a cat") == -3926265676669569040
    assert text_key("a") != text_key("b")
