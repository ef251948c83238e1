"""Who teaches the support prototypes in training (the second half of SDPM); nothing of it runs at inference.

Of each shot i there is the student p'_s,i = u_i p_s,i and the gate u_i = (v_i + 1) / 2; of the query the
ungated prototype p_q, pooled under the query mask. A gate commutes with pooling: the query pooled after gate
i is u_i p_q.

Source: SD-AANet (Zhao et al. 2022), Sec. III-B3 and III-B4. Eq. 7 and 9 print v where their text means the
i-th support prototype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from fewseg.losses.distillation import kl_to_teacher, tempered_kl
from fewseg.ops.masks import foreground_cells


@dataclass(frozen=True, kw_only=True)
class SeparateTeachers:
    """A teacher for each shot, and the mean of the K losses (Eq. 8-9).

    d_t,i = (softmax(p'_s,i) + softmax(u_i p_q)) / 2.

    Attributes:
        detach: let no gradient through the teacher. The paper does not say; its code lets it through.
    """

    kind: Literal["separate"] = "separate"
    detach: bool = False

    def query_cells(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """The query mask (B, H, W) on the feature grid, (B, 1, h, w)."""
        return foreground_cells(masks, size)

    def loss(self, students: Tensor, gates: Tensor, query: Tensor) -> Tensor:
        """L_KD.

        Args:
            students: (B, K, d) gated support prototypes.
            gates: (B, K, d).
            query: (B, d) ungated query prototype.

        Returns:
            Scalar.
        """
        teachers = (students.softmax(dim=-1) + (gates * query.unsqueeze(1)).softmax(dim=-1)) / 2
        return kl_to_teacher(students, teachers.detach() if self.detach else teachers).mean()


@dataclass(frozen=True, kw_only=True)
class IntegralTeacher:
    """One teacher for all shots, of the query under the mean gate; mean of the K losses (Eq. 6-7).

    d_t = (mean_i softmax(p'_s,i) + softmax(mean_i u_i p_q)) / 2. The paper defines d_t for one shot; that
    the K support distributions enter by their mean is ours, and what makes it one teacher.

    Attributes:
        detach: see ``SeparateTeachers``.
    """

    kind: Literal["integral"] = "integral"
    detach: bool = False

    def query_cells(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """The query mask (B, H, W) on the feature grid, (B, 1, h, w)."""
        return foreground_cells(masks, size)

    def loss(self, students: Tensor, gates: Tensor, query: Tensor) -> Tensor:
        """L_KD; see ``SeparateTeachers.loss``."""
        support = students.softmax(dim=-1).mean(dim=1)
        teacher = (support + (gates.mean(dim=1) * query).softmax(dim=-1)) / 2
        if self.detach:
            teacher = teacher.detach()
        return kl_to_teacher(students, teacher.unsqueeze(1).expand_as(students)).mean()


@dataclass(frozen=True, kw_only=True)
class PrototypeTeacher:
    """The teacher of the released code: softmax of the mean of prototypes instead of a mean of softmaxes.

    The query prototype is ungated, its mask resized to the nearest cell; gradients go into the teacher; the
    divergence is softened and averaged over all elements.

    Attributes:
        temperature: of both softmaxes.
        factor: 0.9 times the squared temperature.
    """

    kind: Literal["prototype"] = "prototype"
    temperature: float = 5.0
    factor: float = 0.9 * 25

    def query_cells(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """The query mask (B, H, W) at the nearest pixels of the feature grid, (B, 1, h, w)."""
        return F.interpolate((masks == 1).unsqueeze(1).float(), size=size, mode="nearest")

    def loss(self, students: Tensor, gates: Tensor, query: Tensor) -> Tensor:
        """The released L_KD; see ``SeparateTeachers.loss``."""
        del gates
        teachers = (students + query.unsqueeze(1)) / 2
        found = tempered_kl(students, teachers, temperature=self.temperature, factor=self.factor)
        return found.mean()


@dataclass(frozen=True, kw_only=True)
class NoDistillation:
    """No teacher and no loss."""

    kind: Literal["none"] = "none"


DistillationConfig = SeparateTeachers | IntegralTeacher | PrototypeTeacher | NoDistillation
