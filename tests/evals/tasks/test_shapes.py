"""A file of one benchmark that is given to another: refused, with the right task's name."""

import json
from pathlib import Path

import pytest

from relvlm.errors import UserError
from relvlm.evals.tasks.registry import TASKS
from relvlm.evals.tasks.shapes import file_shape

BOX = {"bbox_x": 0, "bbox_y": 0, "bbox_w": 4, "bbox_h": 4}
FLAGS = {"subj_neg": True, "verb_neg": False, "obj_neg": False}
TEXTS = {"caption": "a dog", "negative_caption": "a cat"}
SENTENCES = [{"raw": "a dog"}]
HEADER = "sentence,pos_triplet,neg_triplet,pos_url,neg_url,pos_image_id,neg_image_id,subj_neg,verb_neg,obj_neg"
# Small files of the published shapes: (those that score it, file name, content).
FILES = [
    (["vsr"], "test.jsonl", [{"image": "a.jpg", "caption": "a dog", "label": 1, "relation": "on"}]),
    (["valse"], "plurals.json", {"k": {"image_file": "a", "caption": "b", "foil": "c", "mturk": {"caption": 3}}}),
    (["sugarcrepe"], "add_obj.json", {"0": {"filename": "a.jpg", **TEXTS}}),
    (["sugarcrepe_pp"], "swap_obj.json", [{"id": 0, "filename": "a.jpg", "caption2": "the dog", **TEXTS}]),
    (["sugarcrepe_pp"], "keyed.json", {"0": {"filename": "a.jpg", "caption2": "the dog", **TEXTS}}),
    (["svo"], "svo_probes.csv", f"{HEADER}\na,t,t,u,v,1,2,True,False,False\n"),
    (["svo"], "svo.jsonl", [{"caption": "a", "pos_image": "1", "neg_image": "2", **FLAGS}]),
    (["winoground"], "examples.jsonl", [{"id": 0, "caption_0": "a", "caption_1": "b", "image_0": "i", "image_1": "j"}]),
    (
        ["aro"],
        "visual_genome_relation.json",
        [{"image_path": "a.jpg", "true_caption": "a", "false_caption": "b", "relation_name": "on", **BOX}],
    ),
    (["aro"], "coco_order.json", [{"image": "a.jpg", "caption_options": ["a b", "b a"]}]),
    (
        ["whatsup"],
        "controlled_images_dataset.json",
        [{"image_path": "a_on_b.jpeg", "caption_options": ["a", "b", "c", "d"]}],
    ),
    (["whatsup"], "coco_qa_one_obj.json", [[1, "a", "b"]]),
    (["colorswap"], "test.json", [{"id": 0, "caption_1": "a", "caption_2": "b", "image_1": "i", "image_2": "j"}]),
    (["vismin"], "vismin.jsonl", [{"text_0": "a", "text_1": "b", "image_0": "i", "image_1": "j"}]),
    (["negbench"], "mcq.csv", "image_path,caption_0,caption_1,correct_answer\na.jpg,a,b,1\n"),
    (["choice"], "mine.jsonl", [{"image": "a.jpg", "options": ["a", "b"], "answer": 1}]),
    (
        ["refcoco"],
        "finetune_refcoco_val.json",
        {
            "images": [{"file_name": "a", "height": 4, "width": 4, "id": 1, "caption": "left"}],
            "annotations": [{"image_id": 1, "bbox": [0, 0, 2, 2]}],
        },
    ),
    (["paragraphs"], "paragraphs_v1.json", [{"image_id": 1, "url": "", "paragraph": "a dog"}]),
    ([], "test_split.json", [1, 2, 3, 4]),
    (["coco"], "dataset_coco.json", {"images": [{"filename": "a", "split": "test", "sentences": SENTENCES}]}),
    (["flickr30k"], "dataset_flickr30k.json", {"images": [{"filename": "a", "split": "test", "sentences": SENTENCES}]}),
    (["coco"], "coco_test.json", [{"image": "val2014/COCO_val2014_000000391895.jpg", "caption": ["a", "b"]}]),
    (["flickr30k"], "flickr30k_test.json", [{"image": "flickr30k-images/1007129816.jpg", "caption": ["a", "b"]}]),
    (
        [],
        "captions_val2017.json",
        {"images": [{"file_name": "a", "height": 1, "width": 1, "id": 1}], "annotations": []},
    ),
    (["cola"], "multi_object.json", [["u", "a", "v", "b"]]),
    (["vl_checklist"], "checklist.json", [["a.jpg", {"POS": ["a"], "NEG": ["b"]}]]),
    ([], "scores.jsonl", [{"label": 1, "score": 0.5, "relation": "on", "image": "a.jpg", "text": "b"}]),
]


def written(folder: Path, name: str, content: object) -> Path:
    if name.startswith("dataset_") and isinstance(content, dict):
        content = {**content, "dataset": name[len("dataset_") : -len(".json")]}
    lines = "".join(json.dumps(row) + "\n" for row in content) if name.endswith("jsonl") else ""
    (folder / name).write_text(content if isinstance(content, str) else lines or json.dumps(content))
    if name == "paragraphs_v1.json":
        (folder / "test_split.json").write_text("[1]")
    if name == "vismin.jsonl":
        rows = "0,T0_I0 > T1_I0 & T1_I1 > T0_I1,T0_I0 > T0_I1 & T1_I1 > T1_I0,object"
        (folder / "sim_solution.csv").write_text(f"idx,Text,Image,category\n{rows}\n")
    return folder / name


@pytest.mark.parametrize(("tasks", "name", "content"), FILES, ids=[name for _, name, _ in FILES])
@pytest.mark.parametrize("task", TASKS)
def test_each_file_is_taken_by_its_own_task_alone(
    tmp_path: Path, task: str, tasks: list[str], name: str, content: object
) -> None:
    path = written(tmp_path, name, content)
    if task in tasks:
        assert TASKS[task].load(path)  # type: ignore[attr-defined]
        return
    with pytest.raises(UserError, match=name.replace(".", r"\.")) as caught:
        TASKS[task].load(path)  # type: ignore[attr-defined]
    assert all(right in str(caught.value) for right in tasks)


OFFICIAL = {
    "vsr": ["vsr/random/dev.jsonl", "vsr/random_2022/test.jsonl"],
    "valse": [f"valse/{name}.json" for name in ("actant-swap", "existence", "foil-it", "plurals")],
    "sugarcrepe": [f"sugarcrepe/{name}.json" for name in ("add_att", "replace_rel", "swap_obj")],
    "sugarcrepe_pp": [f"sugarcrepe_pp/{name}.json" for name in ("replace_att", "swap_obj")],
    "cola": ["cola/multi_object.json"],
    "": ["paragraphs/test_split.json"],
}


@pytest.mark.parametrize(("own", "file"), [(own, file) for own, files in OFFICIAL.items() for file in files])
def test_each_published_file_is_taken_by_its_own_task_alone(shared: Path, own: str, file: str) -> None:
    path = shared / "data/benchmarks" / file
    for name, task in TASKS.items():
        if name == own:
            assert task.load(path).examples  # type: ignore[attr-defined]
        else:
            with pytest.raises(UserError, match=f"--task {own}" if own else "no task here scores it"):
                task.load(path)  # type: ignore[attr-defined]


def test_a_record_of_another_benchmark_among_others_is_named(tmp_path: Path) -> None:
    rows = [{"filename": "a.jpg", **TEXTS}, {"filename": "b.jpg", "caption2": "c", **TEXTS}]
    (tmp_path / "add_obj.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=r"add_obj\.json: \[1\]: this is no SugarCrepe but a SugarCrepe\+\+ file"):
        TASKS["sugarcrepe"].load(tmp_path / "add_obj.json")  # type: ignore[attr-defined]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"a,b\n1,2", b"[" * 100_000, b'{"a": 1}'])
def test_an_unknown_file_has_no_shape(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert file_shape(tmp_path / "a.json") is file_shape(tmp_path / "none") is None
