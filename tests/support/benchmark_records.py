"""A genuine record of each benchmark's format, and rows of its scores, for tests that make them odd."""

from typing import Any

BOX = {"bbox_x": 1, "bbox_y": 2, "bbox_w": 4, "bbox_h": 6}
FLAGS = {"subj_neg": True, "verb_neg": False, "obj_neg": False}
CAPTIONS = {"caption_0": "a", "caption_1": "b"}
# A genuine record of each format: (task, file, record).
FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vsr": (
        "vsr",
        "test.jsonl",
        {"image": "a.jpg", "caption": "a dog", "label": 1, "relation": "on", "held_out": True},
    ),
    "valse": (
        "valse",
        "plurals.json",
        {"image_file": "a.jpg", "caption": "a dog", "foil": "dogs", "mturk": {"caption": 3, "foil": 0}},
    ),
    "sugarcrepe": (
        "sugarcrepe",
        "add_obj.json",
        {"filename": "a.jpg", "caption": "a dog", "negative_caption": "a cat"},
    ),
    "svo csv": (
        "svo",
        "svo.csv",
        {"sentence": "a dog", "pos_image_id": "1", "neg_image_id": "2", "pos_triplet": "a,b,c", **FLAGS},
    ),
    "svo jsonl": (
        "svo",
        "svo.jsonl",
        {"caption": "a dog", "pos_image": "1", "neg_image": "2", "svo_index": 7, **FLAGS},
    ),
    "winoground": (
        "winoground",
        "examples.jsonl",
        {"id": 3, "caption_0": "a b", "caption_1": "b a", "image_0": "i", "image_1": "j", "collapsed_tag": "Both"},
    ),
    "aro": (
        "aro",
        "visual_genome_relation.json",
        {"image_path": "a.jpg", "true_caption": "a b", "false_caption": "b a", "relation_name": "on", **BOX},
    ),
    "aro order": ("aro", "coco_order.json", {"image": "a.jpg", "caption_options": ["a b c", "b a c", "c a b"]}),
    "whatsup": (
        "whatsup",
        "controlled_images_dataset.json",
        {"image_path": "mug_on_cap.jpeg", "caption_options": ["a", "b", "c"], "held_out": True},
    ),
    "sugarcrepe++": (
        "sugarcrepe_pp",
        "swap_obj.json",
        {"id": 3, "filename": "a.jpg", "caption": "a dog", "caption2": "one dog", "negative_caption": "a cat"},
    ),
    "colorswap": (
        "colorswap",
        "test.json",
        {"id": 3, "caption_1": "a b", "caption_2": "b a", "image_1": "i", "image_2": "j"},
    ),
    "vismin": (
        "vismin",
        "vismin.jsonl",
        {"text_0": "a b", "text_1": "b a", "image_0": "i", "image_1": "j", "category": "object"},
    ),
    "negbench": (
        "negbench",
        "mcq.csv",
        {
            "image_path": "a.jpg",
            "caption_0": "a",
            "caption_1": "b",
            "correct_answer": "1",
            "correct_answer_template": "x",
        },
    ),
    "choice": ("choice", "mine.jsonl", {"image": "a.jpg", "options": ["a", "b", "c"], "answer": 2, "kind": "on"}),
    "cola": ("cola", "multi_object.json", {"[0]": "http://x/1.jpg", "[1]": "a", "[2]": "2.jpg", "[3]": "b"}),
    "checklist": ("vl_checklist", "spatial.json", {"[0]": "VG_100K/1.jpg", "[1]": {"POS": ["a"], "NEG": ["b", "c"]}}),
    "whatsup pairs": ("whatsup", "vg_qa_one_obj.json", {"[0]": 7, "[1]": "a", "[2]": "b"}),
    "refcoco": (
        "refcoco",
        "finetune_refcoco_val.json",
        {"file_name": "a.jpg", "caption": "left", "width": 8, "height": 9, "id": 1},
    ),
    "paragraphs": ("paragraphs", "paragraphs_v1.json", {"image_id": 1, "url": "", "paragraph": "a dog"}),
    "karpathy": (
        "coco",
        "karpathy.json",
        {"filename": "a.jpg", "filepath": "val2014", "split": "test", "sentences": [{"raw": "a dog"}, {"raw": "b"}]},
    ),
    "albef": ("flickr30k", "karpathy.json", {"image": "a.jpg", "caption": ["a dog", "a cat"]}),
}
# Rows of scores.jsonl, by task.
ROWS: dict[str, list[dict[str, Any]]] = {
    "vsr": [
        {"label": 1, "relation": "on", "id": 0, "split": "dev"},
        {"label": 0, "relation": "on", "id": 1, "split": "dev"},
    ],
    "valse": [{"label": f"0_{e}", "instrument": "plurals", "piece": "plurality", "id": 0, "key": "k"} for e in "cf"],
    "svo": [{"label": f"0_{e}", **FLAGS, "pos_triplet": "a,b,c"} for e in "pn"],
    "sugarcrepe": [{"label": f"0_{e}", "piece": "add_obj", "held_out": True} for e in "cn"],
    "winoground": [{"label": f"3_{c}", "collapsed_tag": "Both"} for c in ("c0_i0", "c0_i1", "c1_i0", "c1_i1")],
    "aro": [{"label": f"0_{i}", "piece": "relation", "kind": "on", "box": [1, 2, 5, 8]} for i in (0, 1)],
    "whatsup": [
        {"label": f"{n}_{i}", "piece": "A", "set": "mug cap", "relation": relation}
        for n, relation in enumerate(("left", "right"))
        for i in (0, 1)
    ],
    "sugarcrepe_pp": [
        {"label": f"0_{e}", "piece": "swap_obj", "cosine": 0.1 * i, "text_cosine": 0.2}
        for i, e in enumerate(("c1", "c2", "n"))
    ],
    "cola": [{"label": f"3_{c}"} for c in ("c0_i0", "c0_i1", "c1_i0", "c1_i1")],
    "vl_checklist": [{"label": f"0_{i}", "piece": "Relation_vg_spatial"} for i in (0, 1)],
    "negbench": [{"label": f"0_{i}", "piece": "mcq", "type": "hybrid", "answer": 1} for i in (0, 1)],
    "choice": [{"label": f"0_{i}", "piece": "mine", "kind": "on", "answer": 1} for i in (0, 1)],
    "refcoco": [{"label": "1", "piece": "refcoco_val", "target": [0, 0, 2, 2], "size": [4, 4]}],
    "coco": [{"image": i, "text": i, "label": 1, "tr": 1, "ir": 1, "name": "a"} for i in (0, 1)],
}
