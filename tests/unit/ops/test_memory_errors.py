import pytest
import torch

from fewseg.ops.memory import as_memory_error


def test_memory_that_torch_cannot_get_is_a_memory_error():
    with pytest.raises(MemoryError, match="memory"), as_memory_error():
        torch.empty(1 << 55)


def test_a_gpus_error_is_one_too():
    with pytest.raises(MemoryError, match="CUDA out of memory"), as_memory_error():
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), as_memory_error():
        raise RuntimeError("shapes differ")
