"""COCO retrieval on Karpathy's split (5,000 images and 25,010 captions of test)."""

from __future__ import annotations

from relvlm.evals.images import COCO
from relvlm.evals.tasks.retrieval import RetrievalTask

TASK = RetrievalTask(
    "coco",
    k=256,
    files=("karpathy.json", "dataset_coco.json"),
    title="COCO",
    shown=("TR@1", "IR@1"),
    place=50,
    coarse=True,
    data_sets=(COCO,),
)
