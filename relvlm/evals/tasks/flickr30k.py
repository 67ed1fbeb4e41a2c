"""Flickr30K retrieval on Karpathy's split (1,000 images and 5,000 captions of test)."""

from __future__ import annotations

from relvlm.evals.images import FLICKR30K
from relvlm.evals.tasks.retrieval import RetrievalTask

TASK = RetrievalTask(
    "flickr30k",
    k=128,
    files=("karpathy.json", "dataset_flickr30k.json"),
    title="Flickr30K",
    shown=("TR@1", "TR@5", "IR@1", "IR@5"),
    place=40,
    coarse=True,
    data_sets=(FLICKR30K,),
)
