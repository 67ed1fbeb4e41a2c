"""Retrieval of Stanford's image paragraphs (Krause et al., CVPR 2017), with the split files beside them."""

from __future__ import annotations

from relvlm.evals.images import VISUAL_GENOME
from relvlm.evals.tasks.gallery import PARAGRAPHS
from relvlm.evals.tasks.retrieval import RetrievalTask

TASK = RetrievalTask(
    "paragraphs",
    k=128,
    files=("paragraphs_v1.json",),
    title="Paragraphs",
    shown=("TR@1", "TR@5", "IR@1", "IR@5"),
    place=30,
    kinds=(PARAGRAPHS,),
    data_sets=(VISUAL_GENOME,),
)
