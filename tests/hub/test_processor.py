"""Pixels and tokens through transformers' AutoProcessor: those of training and of evaluation."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

import relvlm
from relvlm.data.batches.transforms import CLIP_STD, normalise, resize_square
from relvlm.data.decoders import open_picture
from relvlm.data.text import Tokenizer, pre_caption
from relvlm.errors import UserError
from relvlm.evals.scoring.scorer import Scorer
from relvlm.hub import RelVLMProcessor

TEXTS = ["A dog, on the box!", "the dog", "a box w3 on the [MASK]"]


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Of several modes and shapes."""
    rng, paths = np.random.default_rng(0), []
    for i, (mode, size) in enumerate((("RGB", (50, 40)), ("L", (20, 33)), ("RGBA", (64, 64)))):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).convert(mode).save(paths[-1])
    return paths


def test_pixels_are_those_of_evaluation(folder, photos):
    processor = AutoProcessor.from_pretrained(folder)
    assert type(processor) is RelVLMProcessor
    found = processor(images=photos)["pixel_values"]
    transform = Scorer(relvlm.load(folder), None).transform
    for pixels, photo in zip(found, photos, strict=True):
        assert torch.equal(pixels, transform(Image.open(photo)))
    assert torch.equal(found, processor(images=[Image.open(photo) for photo in photos])["pixel_values"])


def test_pixels_are_those_of_training_to_a_grey_level(folder, tmp_path):
    """Training's bicubic filter is torch's, which rounds otherwise than Pillow's now and then."""
    coarse = np.random.default_rng(0).integers(0, 255, (5, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((70, 50), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    found = AutoProcessor.from_pretrained(folder)(images=tmp_path / "photo.png")["pixel_values"]
    square_HWC = resize_square(open_picture((tmp_path / "photo.png").read_bytes(), 10**6), 32)
    wanted = normalise(torch.from_numpy(square_HWC).permute(2, 0, 1)[None])
    levels = (found - wanted).abs() * 255 * torch.tensor(CLIP_STD)[:, None, None]
    assert levels.max() < 1.01 and levels.mean() < 0.25, (levels.max(), levels.mean())


def test_tokens_are_those_of_training(folder):
    found = AutoProcessor.from_pretrained(folder)(text=TEXTS)
    tokenizer = Tokenizer(folder / "vocab.txt")
    wanted = tokenizer.encode([pre_caption(text, 40) for text in TEXTS], 36, sep=True)
    lengths = found["attention_mask"].sum(1).tolist()
    assert [row[:n] for row, n in zip(found["input_ids"].tolist(), lengths, strict=True)] == wanted
    assert found["input_ids"].shape[1] == max(map(len, wanted))
    assert all((row[n:] == tokenizer.pad_id).all() for row, n in zip(found["input_ids"], lengths, strict=True))


def test_a_score_is_that_of_an_evaluation(folder, photos):
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    with torch.no_grad():
        found = model(**processor(images=photos, text=TEXTS)).match_logits.softmax(-1)[:, 1]
    ours = relvlm.load(folder)
    torch.testing.assert_close(found, Scorer(ours, ours.tokenizer).probabilities(photos, TEXTS))


def test_saved_again_it_has_the_same_bytes(folder, tmp_path):
    for again in (tmp_path / "once", tmp_path / "twice"):
        AutoProcessor.from_pretrained(folder).save_pretrained(again)
        for name in ("vocab.txt", "config.json"):
            assert (again / name).read_bytes() == (folder / name).read_bytes()
        folder = again
    assert len(list(again.iterdir())) == 2


def test_model_and_processor_in_one_folder_are_a_checkpoint(folder, tmp_path):
    for part in (AutoModel, AutoProcessor):
        part.from_pretrained(folder).save_pretrained(tmp_path / "both")
    assert relvlm.load(tmp_path / "both").tokenizer.pieces("dog box") == [6, 9]


@pytest.mark.parametrize(("words", "limit", "length"), [(14, None, 16), (15, None, 16), (3, 5, 5), (4, 5, 5)])
def test_a_text_that_is_cut_is_told(words, limit, length, folder, recwarn):
    """The model has 16 positions, two of which are [CLS] and [SEP]."""
    ids = AutoProcessor.from_pretrained(folder)(text=" ".join(["dog"] * words), max_length=limit)["input_ids"]
    assert ids.shape == (1, length)
    told = [str(each.message) for each in recwarn if "texts cut" in str(each.message)]
    assert told == ([f"1 of 1 texts cut, at 40 words or {limit or 16} tokens"] if words in (15, 4) else [])


@pytest.mark.parametrize("length", [17, 2, 1, 0, -3])
def test_a_length_that_no_text_can_have_is_refused(length, folder):
    processor = AutoProcessor.from_pretrained(folder)
    with pytest.raises(ValueError, match=f"max_length={length}: expected 3 to 16"):
        processor(text="dog", max_length=length)
    assert all(processor(text="dog", max_length=fits)["input_ids"].shape == (1, 3) for fits in (3, 16))


def test_other_tensors_than_pytorchs_are_refused(folder):
    with pytest.raises(ValueError, match="return_tensors='np'"):
        AutoProcessor.from_pretrained(folder)(text="a dog", return_tensors="np")


def test_a_file_that_is_no_image_is_named(folder, tmp_path):
    (tmp_path / "torn.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"torn\.png: not a readable image"):
        AutoProcessor.from_pretrained(folder)(images=tmp_path / "torn.png")


def test_a_folder_without_vocabulary_or_with_anothers_is_refused(folder):
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(UserError, match="5 tokens, the model has 50"):
        AutoProcessor.from_pretrained(folder)
    (folder / "vocab.txt").unlink()
    with pytest.raises(UserError, match=r"no vocab\.txt"):
        AutoProcessor.from_pretrained(folder)


def test_a_photo_on_the_web_would_be_decoded_from_memory(folder, photos):
    """What PIL reads lazily from a stream is taken as well."""
    processor = AutoProcessor.from_pretrained(folder)
    image = Image.open(io.BytesIO(photos[0].read_bytes()))
    assert torch.equal(processor(images=image)["pixel_values"], processor(images=photos[0])["pixel_values"])
