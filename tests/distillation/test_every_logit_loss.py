"""What holds of every loss that compares logits with logits: its gradient is right, and no input makes it infinite."""

from __future__ import annotations

import pytest
import torch

from napari_kdseg.distillation.losses.cwd import cwd
from napari_kdseg.distillation.losses.dist import dist_inter, dist_intra
from napari_kdseg.distillation.losses.dkd import dkd
from napari_kdseg.distillation.losses.knowledge_distillation import kd
from napari_kdseg.distillation.losses.local_affinity import first_order, zero_order
from napari_kdseg.distillation.losses.logit_standardisation import logit_standardisation
from napari_kdseg.distillation.losses.pixel_wise import pixel_wise
from napari_kdseg.errors import ConfigurationError

LOSSES = (cwd, dist_inter, dist_intra, dkd, first_order, kd, logit_standardisation, pixel_wise, zero_order)
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)


@every_loss
def test_gradient_is_right_and_reaches_the_student_only(case, loss):
    student, teacher, target = case((2, 4, 3, 3))
    student, teacher = student.double().requires_grad_(), teacher.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher.detach(), target), student)
    loss(student, teacher, target).backward()
    assert teacher.grad is None
    assert not student.grad[0, :, 0, 0].any()  # ignored
    assert student.grad[0, :, -1, -1].all()


@every_loss
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("size", [(1, 1), (5, 7)])
@pytest.mark.parametrize("fill", [0, 1, 255])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_finite_on_degenerate_input(loss, classes, size, fill, dtype):
    """One pixel, one class, nothing labelled, logits all alike or so large that a class hidden by -1000 shows."""
    torch.manual_seed(0)
    target = torch.full((1, *size), fill)
    for scale in (0.0, 1.0, 1e4):
        student = (scale * torch.randn(1, classes, *size)).to(dtype).requires_grad_()
        value = loss(student, (scale * torch.randn(1, classes, *size)).to(dtype), target)
        value.backward()
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert torch.isfinite(student.grad).all()
        if fill == 255 or (scale == 0 and loss is not pixel_wise):  # whose minimum is the teacher's entropy
            assert value.item() == pytest.approx(0, abs=1e-5)


@every_loss
def test_refuses_a_teacher_of_other_classes(loss):
    with pytest.raises(ConfigurationError, match=r"\(1, 3, 8, 6\).*\(1, 4, 8, 6\)"):
        loss(torch.zeros(1, 3, 8, 6), torch.zeros(1, 4, 8, 6), torch.zeros(1, 8, 6, dtype=torch.long))
