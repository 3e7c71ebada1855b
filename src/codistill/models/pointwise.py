"""1×1 convolutions with a stride: the image is thinned out first, then convolved without a stride.

The result is the same by definition. oneDNN 3.13, which torch 2.15 has, writes outside its memory where it
computes the weight's gradient with a stride, in channels-last order with fewer than 16 channels: a run then
ends in a segmentation fault, or goes on with a damaged heap.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class PointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution without padding, computed without a stride. [B, C, H, W] → [B, K, ⌈H/s⌉, ⌈W/s⌉]."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of every s-th pixel."""
        rows, columns = self.stride
        return F.conv2d(input[:, :, ::rows, ::columns], self.weight, self.bias, groups=self.groups)


def thin_out_first(module: nn.Module) -> None:
    """Let every 1×1 convolution with a stride in a module thin the image out first."""
    for part in module.modules():
        if (
            type(part) is nn.Conv2d
            and part.kernel_size == (1, 1)
            and part.stride != (1, 1)
            and part.padding == (0, 0)
        ):
            part.__class__ = PointwiseConv2d
