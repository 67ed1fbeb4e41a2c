"""Captions to WordPiece ids (ALBEF's and X-VLM's rules)."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

# Rust threads that start before a DataLoader forks would leave its workers with a warning or a deadlock.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Tokenizer as WordPieceTokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from relvlm.errors import UserError

CACHED_WORDS = 1 << 17
_DROPPED = re.compile(r"[,.'!?\"()*#:;~]")
_SPACES = re.compile(r"\s{2,}")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def pre_caption(text: str, max_words: int) -> str:
    """Lower-cased text without punctuation, cut to `max_words` words; may be "". Source: ALBEF."""
    text = _DROPPED.sub("", text.lower()).replace("-", " ").replace("/", " ").replace("<person>", "person")
    text = _SPACES.sub(" ", text).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])


def caption_ids(tokenizer: Tokenizer, text: str, max_words: int, max_tokens: int, sep: bool) -> tuple[list[int], bool]:
    """Ids of a caption, and whether it had to be cut, at `max_words` words or `max_tokens` ids."""
    clean, cut_before = pre_caption(text, max_words), tokenizer.truncated
    (ids,) = tokenizer.encode([clean], max_tokens, sep)
    words_cut = len(pre_caption(text, max_words + 1)) > len(clean)
    return ids, words_cut or tokenizer.truncated > cut_before


def text_key(text: str) -> int:
    """A signed 64-bit hash, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


class Tokenizer:
    """Uncased BERT WordPiece over a local `vocab.txt` (one token a line).

    `truncated` counts the texts that `encode` had to cut. Special tokens spelt in a text are plain text.
    """

    def __init__(self, vocab_file: Path) -> None:
        """Raises UserError where the file is absent or lacks a special token."""
        vocab = _read_vocab(Path(vocab_file))
        self.pad_id, _, self.cls_id, self.sep_id, self.mask_id = (vocab[token] for token in _SPECIAL)
        self.vocab_size = max(vocab.values()) + 1
        self.continuation_ids = frozenset(i for token, i in vocab.items() if token.startswith("##"))
        self.special_ids = frozenset(i for token, i in vocab.items() if _is_special(token))
        self.word_ids = tuple(i for i in range(self.vocab_size) if i not in self.special_ids)
        self.truncated = 0
        self._wordpiece = WordPieceTokenizer(WordPiece(vocab, unk_token="[UNK]"))
        self._wordpiece.normalizer = BertNormalizer(lowercase=True)
        self._wordpiece.pre_tokenizer = BertPreTokenizer()
        self._word: Callable[[str], list[int]] = lru_cache(CACHED_WORDS)(self._encode_word)

    def pieces(self, text: str) -> list[int]:
        """Ids of a text without special tokens, however long."""
        # BERT never joins across a blank, so words can be cached: several times faster than whole texts.
        ids: list[int] = []
        for word in text.split(" "):
            ids += self._word(word)
        return ids

    def encode(self, texts: list[str], max_tokens: int, sep: bool = False) -> list[list[int]]:
        """`[CLS] words` of each text, then [SEP] if asked; at most `max_tokens` ids in all."""
        room = max_tokens - 1 - sep
        end = [self.sep_id] if sep else []
        encoded = []
        for text in texts:
            ids = self.pieces(text)
            self.truncated += len(ids) > room
            encoded.append([self.cls_id, *ids[:room], *end])
        return encoded

    def _encode_word(self, word: str) -> list[int]:
        return self._wordpiece.encode(word, add_special_tokens=False).ids


def _read_vocab(vocab_file: Path) -> dict[str, int]:
    if not vocab_file.is_file():
        raise UserError(f"{vocab_file}: data.vocab: no such file (a WordPiece vocab.txt, one token a line)")
    try:
        with vocab_file.open(encoding="utf-8-sig") as lines:  # editors put a byte order mark before the first token
            vocab = {line.rstrip("\n"): i for i, line in enumerate(lines)}
    except ValueError as error:
        raise UserError(f"{vocab_file}: data.vocab: not UTF-8: {error} (one token a line)") from error
    missing = [token for token in _SPECIAL if token not in vocab]
    if missing:
        raise UserError(f"{vocab_file}: data.vocab: no {', '.join(missing)} (not a BERT vocabulary?)")
    return vocab


def _is_special(token: str) -> bool:
    return token.startswith("[") and token.endswith("]") and len(token) > 2
