"""The vision encoders behind one shape: pixels -> one prefix token, then N patches, row-major."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from relvlm.config.vision import SwinConfig, VisionConfig
from relvlm.encoders.packing import offsets_of
from relvlm.encoders.swin import Swin
from relvlm.encoders.vit import ViT
from relvlm.errors import UserError
from relvlm_kernels.regions import box_mask


class VisionEncoder(nn.Module):
    """pixels (B, 3, H, W) -> (B, 1 + N, width); the first token is ViT's [CLS], or the mean of Swin's patches."""

    prefix = 1
    backbone: ViT | Swin

    def __init__(self, config: VisionConfig, image_size: int) -> None:
        super().__init__()
        self.kind = config.kind
        if image_size % config.stride:
            raise UserError(
                f"model.image_size: {image_size} is no multiple of {config.stride}, the stride of this {config.kind}"
            )
        self.config, self.width, self.stride = config, config.output_width, config.stride
        self.grid = (image_size // config.stride, image_size // config.stride)
        if isinstance(config, SwinConfig):
            _check_windows(config, image_size)
            self.backbone = Swin(config, image_size)
        else:
            self.backbone = ViT(config, image_size)

    def forward(self, pixels_BCHW: Tensor, kept_BK: Tensor | None = None) -> Tensor:
        """All tokens, or those of the patches `kept_BK` of each image behind the first one."""
        if kept_BK is not None:
            return self._vit()(self._cast(pixels_BCHW), kept_BK)
        tokens_BSD = self.backbone(self._cast(pixels_BCHW))
        if self.kind == "swin":
            tokens_BSD = torch.cat([tokens_BSD.mean(1, keepdim=True), tokens_BSD], dim=1)
        return tokens_BSD

    def grid_of(self, pixels_BCHW: Tensor) -> tuple[int, int]:
        """(rows, columns) of these images' patches: `grid`, or fewer in training at a low resolution."""
        return pixels_BCHW.shape[2] // self.stride, pixels_BCHW.shape[3] // self.stride

    def draw_patches(self, pixels_BCHW: Tensor) -> Tensor | None:
        """Not exact: the patches (B, K) that a step of training keeps of each image, at random (FLIP, Li et al., 2023).

        None where all are kept, as always in evaluation.
        """
        rows, columns = self.grid_of(pixels_BCHW)
        kept = self.config.kept_patches(rows * columns)
        if kept == rows * columns or not self.training:
            return None
        return torch.rand(len(pixels_BCHW), rows * columns, device=pixels_BCHW.device).topk(kept).indices

    def late_regions(
        self, pixels_BCHW: Tensor, image_R: Tensor, box_R4: Tensor, images: bool, patches: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Late vision masking, all in one packed sequence (T, D), and the offsets of images and regions, int32.

        With `images`, first all tokens of the B whole images. Then R copies with what is outside a box hidden in the
        last blocks: their [CLS] and the patches inside are carried and nothing else. `patches`, the number of those
        in all boxes together, spares reading it back from the device.
        """
        early_BSD = self._vit().early(self._cast(pixels_BCHW))
        inside_RN = box_mask(box_R4, self.grid_of(pixels_BCHW))
        visible_RS = torch.cat([torch.ones_like(inside_RN[:, :1]), inside_RN], dim=1)
        total = None if patches is None else len(box_R4) + patches
        visible = visible_RS.nonzero() if total is None else visible_RS.nonzero_static(size=total)
        region, place = visible.unbind(1)
        cu = offsets_of(visible_RS.sum(1))
        tokens_TD = self._vit().late(early_BSD[image_R.long()[region], place], cu=cu)
        if not images:
            return tokens_TD, cu
        whole_BSD = self._vit().late(early_BSD)
        starts = torch.arange(len(whole_BSD), device=cu.device, dtype=cu.dtype) * whole_BSD.shape[1]
        return torch.cat([whole_BSD.flatten(0, 1), tokens_TD]), torch.cat(
            [starts, cu + whole_BSD.shape[0] * whole_BSD.shape[1]]
        )

    def masked_regions(self, pixels_BCHW: Tensor, image_R: Tensor, mask_RS: Tensor) -> Tensor:
        """(R, S, D): the same for any masks, with every token of a copy; what is hidden is no key to others."""
        early_BSD = self._vit().early(self._cast(pixels_BCHW))
        return self._vit().late(early_BSD[image_R.long()], mask=mask_RS.bool())

    def _vit(self) -> ViT:
        if not isinstance(self.backbone, ViT):
            raise ValueError(
                "late vision masking needs a ViT, dropped patches too: a Swin's tokens attend within windows"
            )
        return self.backbone

    def _cast(self, pixels_BCHW: Tensor) -> Tensor:
        """DeepSpeed makes the weights bf16 and leaves the batch as it is. ValueError for images of another size."""
        self._check_size(*pixels_BCHW.shape[-2:])
        return pixels_BCHW.to(self.backbone.patch_embedding.weight.dtype)

    def _check_size(self, height: int, width: int) -> None:
        """A Swin would shift windows by the mask of its own size, a ViT drop pixels at the edges, without a word."""
        size = self.grid[0] * self.stride
        other = self.training and self.kind != "swin" and height == width and height % self.stride == 0
        if (height, width) != (size, size) and not other:
            raise ValueError(f"images of {height} x {width} pixels: this model's are {size} x {size}")


def _check_windows(config: SwinConfig, image_size: int) -> None:
    for stage in range(len(config.depths)):
        side = image_size // config.patch_size // 2**stage
        if side > config.window and side % config.window:
            raise UserError(f"model.vision.window: {config.window} does not divide a map of {side} x {side}")
