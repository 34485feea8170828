"""Training on batches of one image, where normalisation of maps pooled to one pixel would fail."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class PooledNorm2d(nn.BatchNorm2d):
    """Batch normalisation of maps pooled to one pixel.

    A single image has no spread there, so that training on batches of one would fail; it is then normalised by the
    running statistics, which stay as they are. Parameters and buffers are those of ``BatchNorm2d``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[N, C, h, w]``."""
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] == 1:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(x)


def allow_single_images(module: nn.Module) -> None:
    """Let every batch normalisation inside ``module`` be a :class:`PooledNorm2d`; its weights keep their names."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, _pooled(child))


def _pooled(norm: nn.BatchNorm2d) -> PooledNorm2d:
    made = PooledNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.load_state_dict(norm.state_dict())
    return made
