"""Divergences between prototypes, against sums written out."""

import math

import pytest
import torch

from fewseg.methods.losses import kl_to_teacher, tempered_kl


def softmax(row):
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def test_the_divergence_is_the_sum_of_teacher_times_log_ratio():
    students, teachers = torch.randn(3, 5), torch.randn(3, 5).softmax(-1)
    for row, found in enumerate(kl_to_teacher(students, teachers)):
        own = softmax(students[row].tolist())
        expected = sum(t * math.log(t / s) for t, s in zip(teachers[row].tolist(), own, strict=True))
        assert float(found) == pytest.approx(expected, abs=1e-6)


def test_a_student_that_is_its_own_teacher_has_no_loss_and_zeros_count_as_nothing():
    student = torch.tensor([[1.0, -2.0, 0.5]])
    assert float(kl_to_teacher(student, student.softmax(-1))) == pytest.approx(0, abs=1e-6)
    found = kl_to_teacher(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    assert float(found) == pytest.approx(math.log(2))


def test_a_teacher_that_is_zero_in_a_channel_has_a_finite_gradient():
    """A softmax over prototypes far apart ends in zeros, and teachers learn too."""
    prototypes = torch.tensor([[200.0, 0.0]], requires_grad=True)
    teachers = prototypes.softmax(-1)
    assert teachers[0, 1] == 0
    kl_to_teacher(torch.zeros(1, 2), teachers).sum().backward()
    assert bool(torch.isfinite(prototypes.grad).all())


def test_the_tempered_divergence_is_softened_and_averaged_over_channels():
    students, teachers = torch.randn(2, 4), torch.randn(2, 4)
    for row, found in enumerate(tempered_kl(students, teachers, temperature=5.0, factor=22.5)):
        own = softmax([x / 5 for x in students[row].tolist()])
        taught = softmax([x / 5 for x in teachers[row].tolist()])
        divergence = sum(t * math.log(t / s) for t, s in zip(taught, own, strict=True))
        assert float(found) == pytest.approx(22.5 * divergence / 4, abs=1e-6)


def test_the_gradient_draws_the_student_to_the_teacher():
    student = torch.zeros(1, 3, requires_grad=True)
    kl_to_teacher(student, torch.tensor([[0.7, 0.2, 0.1]])).sum().backward()
    torch.testing.assert_close(student.grad, 1 / 3 - torch.tensor([[0.7, 0.2, 0.1]]))
