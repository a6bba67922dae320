"""On a GPU that is not there: tensors of two devices meet nowhere, and no step waits for the host.

Under torch's FakeTensorMode a tensor on `cuda:0` has a shape and a device, and no values: what
takes one of the CPU and one of the GPU raises, and so does `.item()`. A build without CUDA can
neither differentiate there nor index, so whole models cannot go through it; what jdna itself
computes on a device can.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from jdna_cli.pruning.calibration import Activations
from jdna_cli.sparsity import criteria, masks

GPU = torch.device("cuda:0")


def test_the_mode_sees_devices_that_differ():
    with FakeTensorMode(), pytest.raises(RuntimeError, match="device"):
        torch.empty(3, device=GPU) + torch.empty(3)


def test_masks_are_laid_on_the_gpu_without_waiting():
    kept = masks.pack(torch.rand(6, 8) < 0.5)
    with FakeTensorMode(allow_non_fake_inputs=True):
        weight = torch.empty(6, 8, device=GPU)
        erase = masks.mask_applier(weight, kept)
        erase(weight)
        erase(torch.empty(6, 8, device=GPU))


@pytest.mark.parametrize("name", ["magnitude", "wanda"])
@pytest.mark.parametrize("products", [True, False])
def test_scores_are_computed_where_the_weight_is(name, products):
    with FakeTensorMode():
        weight, inputs = torch.empty(6, 8, device=GPU), torch.empty(20, 8, device=GPU)
        seen = Activations(products=products)
        seen.see("w", inputs)
        seen.see("w", torch.empty(20, 8, device=GPU))
        known = seen.told("w", "w", 1, 0, 2)
        assert criteria.load(name).score(weight, known).device == GPU
