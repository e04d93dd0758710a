import torch
from mmseg.registry import TRANSFORMS

from mmseg_semi.models.intensity_mix import IntensityMix


def test_intensity_mix_keeps_hard_images_weak():
    strong, weak = torch.ones(3, 3, 2, 2), torch.zeros(3, 3, 2, 2)
    results = {'strong': strong, 'weak': weak, 'hardness': torch.tensor([0.0, 0.25, 1.0])}
    mixed = TRANSFORMS.build({'type': 'IntensityMix'})(results)
    assert mixed['strong'][:, 0, 0, 0].tolist() == [1.0, 0.75, 0.0]
    assert results['strong'] is strong
    assert (strong == 1).all()
    assert IntensityMix(adaptive=False)(results)['strong'] is strong
