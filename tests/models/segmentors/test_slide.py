import torch
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from tiny import tiny_segmentor

from mmseg_semi.models.segmentors.slide import _starts


def build(crop, step):
    torch.manual_seed(0)
    config = {**tiny_segmentor('GN'), 'data_preprocessor': None, 'type': 'SlideScoreEncoderDecoder'}
    config['test_cfg'] = ConfigDict(mode='slide', crop_size=(crop, crop), stride=(step, step))
    model = MODELS.build(config).eval()
    with torch.no_grad():
        model.decode_head.conv_seg.weight.normal_()
    return model


def test_windows_of_cityscapes():
    # 2 x 4 windows on 1024 x 2048; the last column is 512 wide.
    assert list(_starts(1024, 769, 512)) == [0, 512]
    assert list(_starts(2048, 769, 512)) == [0, 512, 1024, 1536]
    assert list(_starts(700, 769, 512)) == [0]
    assert list(_starts(769, 769, 512)) == [0]
    assert list(_starts(770, 769, 512)) == [0, 512]


@torch.no_grad()
def test_scores_are_the_mean_softmax_of_the_windows_that_see_a_pixel():
    model, image = build(32, 24), torch.randn(1, 3, 40, 56)
    meta = {'img_shape': (40, 56), 'ori_shape': (40, 56), 'pad_shape': (40, 56)}
    got = model.inference(image, [dict(meta)])
    total, count = torch.zeros(4, 40, 56), torch.zeros(40, 56)
    for top in (0, 24):
        for left in (0, 24):
            crop = image[:, :, top : top + 32, left : left + 32]
            size = crop.shape[2:]
            logits = torch.nn.functional.interpolate(model._forward(crop), size, mode='bilinear')
            total[:, top : top + 32, left : left + 32] += logits[0].softmax(0)
            count[top : top + 32, left : left + 32] += 1
    assert count.max() == 4
    torch.testing.assert_close(got[0].exp(), total / count, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.softmax(1), got.exp(), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_one_window_predicts_like_the_whole_image():
    model, image = build(64, 48), torch.randn(2, 3, 40, 56)
    meta = {'img_shape': (40, 56), 'ori_shape': (40, 56), 'pad_shape': (40, 56)}
    metas = [dict(meta), dict(meta)]
    slid = model.inference(image, metas)
    assert metas == [meta, meta]
    whole = model.whole_inference(image, metas)
    assert torch.equal(slid.argmax(1), whole.argmax(1))


def test_a_method_takes_it_as_its_network():
    model = MODELS.build(
        {
            'type': 'IMAS',
            'segmentor': {**tiny_segmentor(), 'type': 'SlideScoreEncoderDecoder'},
        }
    )
    assert type(model.teacher).__name__ == 'SlideScoreEncoderDecoder'
