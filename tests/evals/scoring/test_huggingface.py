"""Tiny randomly initialised CLIP and BLIP of transformers, scored through the Matcher protocol."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from relvlm.errors import UserError
from relvlm.evals.evaluate import evaluate
from relvlm.evals.scoring.huggingface import load, wrap
from relvlm.evals.scoring.scorer import ScoreOptions, Scorer

transformers = pytest.importorskip("transformers")
WORDS = ["a", "red", "box", "left", "of", "the", "dog", "sits", "on"]
TEXTS = ["a red box", "the dog sits on the box", "a dog left of a box"]
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SIZES, "image_size": 32, "patch_size": 16}


class Processor:
    """A CLIPProcessor's parts, over a BERT vocabulary that is at hand."""

    def __init__(self, vocab: Path) -> None:
        self.tokenizer = transformers.BertTokenizerFast(vocab=str(vocab))
        size = {"height": 32, "width": 32}
        self.image_processor = transformers.BlipImageProcessor(size=size)


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    vocab = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n")
    return Processor(vocab)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (40, 32, 3), dtype=np.uint8)).save(path)
    return paths


def clip() -> torch.nn.Module:
    torch.manual_seed(0)
    text = {**SIZES, "vocab_size": 14, "max_position_embeddings": 16, "eos_token_id": 3, "pad_token_id": 0}
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8)
    return transformers.CLIPModel(config).eval()


def siglip() -> torch.nn.Module:
    torch.manual_seed(0)
    text = {**SIZES, "vocab_size": 14, "max_position_embeddings": 16, "projection_size": 16}
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    return transformers.SiglipModel(config).eval()


def blip() -> torch.nn.Module:
    torch.manual_seed(0)
    text = {**SIZES, "vocab_size": 14, "max_position_embeddings": 16, "encoder_hidden_size": 16}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "sep_token_id": 3}
    config = transformers.BlipConfig(text_config=text, vision_config=VISION, image_text_hidden_size=8)
    model = transformers.BlipForImageTextRetrieval(config).eval()
    with torch.no_grad():  # larger than at initialisation, so that pairs differ visibly
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model


def grid(photos: list[Path]) -> tuple[list[Path], list[str]]:
    return [p for p in photos for _ in TEXTS], TEXTS * len(photos)


def one_by_one(model: torch.nn.Module, processor: Processor, photo: Path, text: str) -> torch.Tensor:
    pixels = processor.image_processor(images=Image.open(photo).convert("RGB"), return_tensors="pt")
    with torch.no_grad():
        return model(**processor.tokenizer(text, return_tensors="pt"), **pixels)


def test_clip_scores_are_the_cosines_of_its_own_forward(processor: Processor, photos: list[Path]) -> None:
    model = clip()
    found, are_probabilities = Scorer(wrap(model, processor)).scores(*grid(photos))
    wanted = []
    for photo, text in zip(*grid(photos), strict=True):
        output = one_by_one(model, processor, photo, text)
        wanted.append((output.logits_per_image / model.logit_scale.exp()).item())
    assert not are_probabilities
    assert found.tolist() == pytest.approx(wanted, abs=1e-5)
    assert max(wanted) - min(wanted) > 0.01


def test_siglip_texts_are_padded_to_its_full_length(processor: Processor, photos: list[Path]) -> None:
    model = siglip()
    found, _ = Scorer(wrap(model, processor)).scores(*grid(photos))
    wanted = []
    for photo, text in zip(*grid(photos), strict=True):
        ids = processor.tokenizer(text, padding="max_length", max_length=16, return_tensors="pt").input_ids
        pixels = processor.image_processor(images=Image.open(photo).convert("RGB"), return_tensors="pt")
        with torch.no_grad():
            output = model(input_ids=ids, **pixels)
        wanted.append(((output.logits_per_image - model.logit_bias) / model.logit_scale.exp()).item())
    assert found.tolist() == pytest.approx(wanted, abs=1e-5)


def test_blip_scores_are_those_of_its_own_forward(processor: Processor, photos: list[Path]) -> None:
    model = blip()
    found = Scorer(wrap(model, processor)).probabilities(*grid(photos))
    outputs = [one_by_one(model, processor, p, t) for p, t in zip(*grid(photos), strict=True)]
    wanted = [output.itm_score.softmax(-1)[0, 1].item() for output in outputs]
    assert found.tolist() == pytest.approx(wanted, abs=1e-5)
    assert max(wanted) - min(wanted) > 0.01


@pytest.mark.parametrize("make", [clip, blip])
def test_features_are_normalised_and_rank_by_the_models_own_cosine(make, processor, photos) -> None:
    model = make()
    scorer = Scorer(wrap(model, processor))
    images, texts = scorer.image_features(photos), scorer.text_features(TEXTS)
    torch.testing.assert_close(images.norm(dim=-1), torch.ones(len(photos)))
    if make is clip:
        wanted = one_by_one(model, processor, photos[1], TEXTS[2]).logits_per_image / model.logit_scale.exp()
    else:
        inputs = processor.tokenizer(TEXTS[2], return_tensors="pt")
        pixels = processor.image_processor(images=Image.open(photos[1]), return_tensors="pt")
        with torch.no_grad():
            wanted = model(**inputs, **pixels, use_itm_head=False).itm_score
    assert (images @ texts.T)[1, 2].item() == pytest.approx(wanted.item(), abs=1e-5)


def test_a_saved_model_is_loaded_from_its_folder(processor: Processor, photos: list[Path], tmp_path: Path) -> None:
    model = blip()
    model.save_pretrained(tmp_path)
    transformers.BlipProcessor(processor.image_processor, processor.tokenizer).save_pretrained(tmp_path)
    found = Scorer(load(str(tmp_path))).probabilities(*grid(photos))
    assert found.tolist() == Scorer(wrap(model, processor)).probabilities(*grid(photos)).tolist()
    assert load(str(tmp_path)).max_words == 40 and load(str(tmp_path), 3).max_words == 3


@pytest.mark.parametrize("make", [clip, blip])
def test_its_images_are_cached(make, processor: Processor, photos: list[Path], tmp_path: Path) -> None:
    options = ScoreOptions(cache=tmp_path)
    first = Scorer(wrap(make(), processor), None, options).scores(*grid(photos))[0]
    again = Scorer(wrap(make(), processor), None, options)
    assert again.scores(*grid(photos))[0].tolist() == first.tolist()
    assert again.cache is not None and again.cache.hits == len(photos)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_threshold_on_similarities_is_refused(processor: Processor, photos: list[Path], tmp_path: Path) -> None:
    row = {"image": photos[0].name, "caption": TEXTS[0], "label": 1, "relation": "on"}
    annotations = write(tmp_path / "dev.jsonl", [row])
    with pytest.raises(UserError, match=r"vsr has a threshold .* needs an ITM head"):
        evaluate(wrap(clip(), processor), None, "vsr", annotations, photos[0].parent, tmp_path / "out")


def test_figures_with_a_threshold_are_left_out_for_similarities(processor, photos, tmp_path: Path) -> None:
    record = {"image_file": photos[0].name, "caption": TEXTS[0], "foil": TEXTS[1], "mturk": {"caption": 3}}
    (tmp_path / "plurals.json").write_text(json.dumps({"a": record}))
    annotations = tmp_path / "plurals.json"
    for make, figures in ((clip, False), (blip, True)):
        found = evaluate(wrap(make(), processor), None, "valse", annotations, photos[0].parent, tmp_path / "out")
        assert ("p_c" in found) == figures
        assert "overall" in found


def test_a_model_of_another_kind_is_refused(processor: Processor) -> None:
    bert = transformers.BertModel(transformers.BertConfig(**SIZES, vocab_size=14))
    with pytest.raises(UserError, match="BertModel: neither CLIP-like"):
        wrap(bert, processor)


def test_a_blip_without_itm_head_is_refused(processor: Processor) -> None:
    model = blip()
    model.itm_head = None
    with pytest.raises(UserError, match="itm_head: absent"):
        wrap(model, processor)


def test_a_folder_without_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        load(str(tmp_path))


@pytest.mark.parametrize(("max_words", "words", "cut"), [(3, 3, False), (3, 4, True), (40, 14, False), (40, 15, True)])
def test_texts_that_are_cut_are_counted(processor: Processor, max_words: int, words: int, cut: bool) -> None:
    """At the words asked for, or at the 16 positions of the model, two of which are its own."""
    matcher, text = wrap(clip(), processor, max_words), " ".join(["dog"] * words)
    assert len(matcher.ids(text)) == min(max_words, words, 14) + 2
    assert matcher.truncated == ({text} if cut else set())


def test_texts_have_40_words_unless_asked(processor: Processor) -> None:
    for make in (clip, blip):
        matcher = wrap(make(), processor)
        assert matcher.protocol()["max_words"] == type(matcher)(make(), processor).max_words == 40


@pytest.mark.parametrize(("pad", "wanted"), [(4, 4), (None, 0)])
def test_texts_are_padded_with_the_pad_token_and_masked(processor: Processor, pad: int | None, wanted: int) -> None:
    for make in (clip, siglip):
        matcher, seen = wrap(make(), processor), {}
        matcher.tokenizer = PadOnly(processor.tokenizer, pad)
        ids, mask = matcher.padded([torch.tensor([7, 8, 9]), torch.tensor([7])])
        assert ids.tolist() == [[7, 8, 9], [7, wanted, wanted]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]
        features = torch.ones(1, 8)
        matcher.model.get_text_features = lambda seen=seen, features=features, **of: seen.update(of) or features
        matcher.encode_text(["a dog"])
        assert seen["input_ids"].shape[1] == (16 if make is siglip else 4)
        assert make is clip or seen["input_ids"][0, 4:].tolist() == [wanted] * 12


class PadOnly:
    """A tokenizer with another pad token."""

    def __init__(self, tokenizer, pad: int | None) -> None:
        self.tokenizer, self.pad_token_id = tokenizer, pad

    def __call__(self, *args, **options):
        return self.tokenizer(*args, **options)


def test_weights_that_are_absent_are_named(processor: Processor, tmp_path: Path) -> None:
    blip().save_pretrained(tmp_path)
    transformers.BlipProcessor(processor.image_processor, processor.tokenizer).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(
        {k: v for k, v in tensors.items() if "text_proj" not in k and "itm_head" not in k},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(UserError, match=r"weights absent, itm_head\.bias, itm_head\.weight, text_proj\.bias, \.\.\."):
        load(str(tmp_path))
