"""A step of pretraining: a batch in, the weighed sum of its objectives out. The one place where losses are summed.

    Batch -> encode -> teacher -> contrast (ITC) -> negatives -> objectives ask -> fused_pass -> they answer -> sum

Which objectives a kind of batch trains is the table in relvlm/kinds.py.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from relvlm.config.schema import TEMPERATURE_RANGE
from relvlm.data.batches.batch import Batch
from relvlm.encoders.compiled import compile_layers
from relvlm.encoders.recompute import recompute_layers
from relvlm.kinds import KINDS, BatchKind
from relvlm.losses.mlm import SoftWords
from relvlm.model import RelVLM
from relvlm.pretraining.chunks import Chunk, ChunkTargets, itc_gradients, random_numbers
from relvlm.pretraining.contrast import Contrast
from relvlm.pretraining.encode import EncodedBatch, Encoders, Features, encode
from relvlm.pretraining.fused_pass import fused_pass
from relvlm.pretraining.means import ONE_RANK, Ranks, Shares, shares_of, weighed
from relvlm.pretraining.negatives import Negatives, draw_negatives, excluded_pairs, group_keys, other_pools
from relvlm.pretraining.objectives import OBJECTIVES, ObjectiveValue, SectionInput
from relvlm.pretraining.savings import ALL_SAVINGS, Savings
from relvlm.pretraining.teacher import Teacher, TeacherTargets, update_and_encode_teacher


class StepLosses(NamedTuple):
    """`total`, to go backward from; `values`: each objective's loss and accuracy, detached scalars by name.

    Of a joint batch the names are KIND/NAME.
    """

    total: Tensor
    values: dict[str, Tensor]


class ItcOfStep(NamedTuple):
    """ITC of each aligned section; of a chunk its part, and in place of their gradients a scalar that has them."""

    losses: dict[BatchKind, Tensor]
    surrogate: Tensor | None


Answers = dict[tuple[BatchKind, str], ObjectiveValue]  # by kind of section and objective


class Pretraining(nn.Module):
    """Model, momentum teacher and the ranks that train together; what DeepSpeed wraps.

    `ranks` and `savings`: see Ranks and Savings. The teacher's state is saved beside the model's.
    """

    teacher: Teacher | None

    def __init__(self, model: RelVLM, ranks: Ranks = ONE_RANK, savings: Savings = ALL_SAVINGS) -> None:
        super().__init__()
        config = model.config
        self.model, self.config, self.ranks, self.savings = model, config, ranks, savings
        self.temperature = Temperature(model.temperature)
        teacher = Teacher(model, config.momentum, config.embed_dim) if config.momentum.enabled else None
        # not registered: neither the optimizer nor ZeRO nor state_dict must find it
        object.__setattr__(self, "teacher", teacher)
        self.contrast = Contrast(config, ranks, teacher)
        if config.compile:  # after the teacher, which without gradients would be compiled a second time
            compile_layers(model.vision, model.text, model.fusion)
        if config.recompute:
            recompute_layers(model.vision, model.text, model.fusion)

    def forward(self, batch: Batch, of: Chunk | None = None, negatives: Negatives | None = None) -> StepLosses:
        """The losses of a batch; where it is a chunk `of` a step, its part of each, so that sums are the step's. Their
        means over ranks are those of the global batch.

        ITM's `negatives`, of a batch that is one section, are drawn where they are not given.
        """
        chunk = None if of is None else self._targets_of(of)
        shares = self._shares([batch])[0] if chunk is None else chunk.shares
        with nullcontext() if chunk is None else random_numbers(chunk.seed):
            temperature = self.temperature()
            encoded = self._encode(self.model, batch)
            (target,) = self._teacher_targets([batch]) if chunk is None else (chunk.teacher,)
            itc = self._itc(batch, encoded.features, target, temperature, chunk)
            drawn = self._negatives(batch, encoded.features, target, temperature, negatives)
            words = self._soft_words(batch, target)
            inputs = [
                SectionInput(batch, *of_section, encoded.texts, self.savings.chunked_words)
                for of_section in zip(batch.sections, drawn, words, strict=True)
            ]
            answers, row_1D = self._ask(inputs, encoded)
        zero = self._zero_for_unused_parameters(batch, encoded, row_1D, temperature)
        return _sum(batch, shares, itc, answers, zero)

    def _targets_of(self, chunk: Chunk) -> ChunkTargets:
        if not chunk.step.targets:
            chunk.step.targets = self.chunk_targets(chunk.step.batches)
        return chunk.step.targets[chunk.place]

    @torch.no_grad()
    def chunk_targets(self, chunks: list[Batch]) -> list[ChunkTargets]:
        """What each chunk must know of its step (GradCache's first pass); all chunks have the same sections."""
        seeds = torch.randint(2**62, (len(chunks),)).tolist()
        targets, shares = self._teacher_targets(chunks), self._shares(chunks)
        if not chunks[0].aligned:
            return [ChunkTargets(*known, None, None) for known in zip(seeds, shares, strict=True)]
        features = [self._features(chunk, seed) for chunk, seed in zip(chunks, seeds, strict=True)]
        itc = itc_gradients(
            lambda leaves, temperature: self.contrast(chunks, leaves, targets, temperature),
            chunks[0].sections, features, self.temperature(),
        )  # fmt: skip
        return [ChunkTargets(*known) for known in zip(seeds, shares, itc, targets, strict=True)]

    def train(self, mode: bool = True) -> Pretraining:
        """Training or evaluation mode, of the teacher too (dropout: as in ALBEF)."""
        if self.teacher is not None:
            self.teacher.train(mode)
        return super().train(mode)

    def _shares(self, chunks: list[Batch]) -> list[Shares]:
        return shares_of(chunks, self.config.negatives, self.ranks)

    def _encode(self, encoders: Encoders, batch: Batch) -> EncodedBatch:
        return encode(encoders, batch, self.config.fusion.region_mask, self.savings.unique_texts)

    def _features(self, chunk: Batch, seed: int) -> Features:
        with random_numbers(seed):
            features = self._encode(self.model, chunk).features
        assert features is not None
        return features

    def _teacher_targets(self, batches: list[Batch]) -> list[TeacherTargets | None]:
        region_mask = self.config.fusion.region_mask
        return update_and_encode_teacher(self.teacher, self.model, batches, region_mask, self.savings)

    def _itc(
        self,
        batch: Batch,
        features: Features | None,
        target: TeacherTargets | None,
        temperature: Tensor,
        chunk: ChunkTargets | None,
    ) -> ItcOfStep:
        if features is None:  # no text says what is seen
            return ItcOfStep({}, None)
        if chunk is None:
            return ItcOfStep(self.contrast([batch], [features], [target], temperature), None)
        assert chunk.itc is not None
        return ItcOfStep(chunk.itc.values, chunk.itc.surrogate(features, temperature))

    def _negatives(
        self,
        batch: Batch,
        features: Features | None,
        target: TeacherTargets | None,
        temperature: Tensor,
        given: Negatives | None,
    ) -> list[Negatives | None]:
        """Of each section, if it is aligned: those given, or hard ones by the teacher's features or the own ones."""
        if features is None or given is not None:
            return [given] * len(batch.sections)
        by, keys_GK = features if target is None else target.features, group_keys(batch)
        return [
            draw_negatives(
                features.of(s), by.of(s), temperature,
                excluded_pairs(keys_GK[s.groups], keys_GK[s.groups], self.config.negatives),
                self.config.itm_floor, other_pools(keys_GK[s.groups]),
                None if batch.draws is None else batch.draws[s.groups],
            ) if s.aligned else None
            for s in batch.sections
        ]  # fmt: skip

    def _soft_words(self, batch: Batch, target: TeacherTargets | None) -> list[SoftWords | None]:
        """The teacher's words for each section, None without a teacher."""
        if target is None or self.teacher is None:
            return [None] * len(batch.sections)
        head, alpha = self.teacher.mlm_head, self.teacher.alpha
        return [SoftWords(head, target.masked_MD[section.masked], alpha) for section in batch.sections]

    def _ask(self, inputs: list[SectionInput], encoded: EncodedBatch) -> tuple[Answers, Tensor]:
        """What every objective of every section makes of one fused pass, and a fused row (1, D)."""
        asked = [
            (name, x)
            for x in inputs
            for name in KINDS[x.section.kind].objectives
            if name in OBJECTIVES  # all but ITC
        ]
        queries = [OBJECTIVES[name].query(x) for name, x in asked]
        fused = fused_pass(self.model.fusion, encoded.texts, encoded.views, queries, self.savings)
        answers = {
            (x.section.kind, name): OBJECTIVES[name].value(self.model, x, rows)
            for (name, x), rows in zip(asked, fused, strict=True)
        }
        return answers, fused[0][:1]

    def _zero_for_unused_parameters(
        self, batch: Batch, encoded: EncodedBatch, row_1D: Tensor, temperature: Tensor
    ) -> Tensor:
        """0, with a gradient for the parameters that this batch leaves out: ZeRO needs one for each, on every rank."""
        trained = {name for section in batch.sections for name in KINDS[section.kind].objectives}
        unused = [OBJECTIVES[name].unused(self.model, row_1D) for name in OBJECTIVES if name not in trained]
        if "itc" not in trained:
            unused += [temperature, self.model.image_projection(encoded.views.cls_GD[:1])]
            unused += [self.model.text_projection(row_1D)]
        zeros = [x.float().sum() for x in unused if x is not None]
        return 0.0 * sum(zeros, start=row_1D.float().sum())


def _sum(batch: Batch, shares: Shares, itc: ItcOfStep, answers: Answers, zero: Tensor) -> StepLosses:
    """Every objective by the weight of its section and by its share of the step."""
    weight = {section.kind: section.weight for section in batch.sections}
    total, values = [zero], {}
    for (kind, name), answer in answers.items():
        share = shares[f"{kind}/{name}"]
        values[kind, name] = weighed(answer.loss, share)
        total.append(weight[kind] * values[kind, name])
        if answer.accuracy is not None:
            values[kind, f"{name}_accuracy"] = weighed(answer.accuracy, share)
    for kind, loss in itc.losses.items():
        values[kind, "itc"] = loss
        if itc.surrogate is None:
            total.append(weight[kind] * loss)
    if itc.surrogate is not None:
        total.append(itc.surrogate)
    prefix = "{0}/{1}" if batch.joint else "{1}"
    return StepLosses(torch.stack(total).sum(), {prefix.format(*k): v.detach() for k, v in values.items()})


class Temperature(nn.Module):
    """The model's temperature [1], clamped in place. In a forward of its own: ZeRO-3 gathers a parameter for that."""

    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.parameter = parameter

    def forward(self) -> Tensor:
        with torch.no_grad():
            self.parameter.clamp_(*TEMPERATURE_RANGE)
        return self.parameter.clone()  # which stays when ZeRO-3 lets go of the parameter
