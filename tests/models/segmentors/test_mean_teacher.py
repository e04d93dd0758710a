import pytest
import torch
from mmseg.registry import MODELS
from tiny import tiny_segmentor


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = MODELS.build({'type': 'IMAS', 'segmentor': tiny_segmentor()})
    model.init_weights()
    return model


def disturb(network):
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            tensor.add_(
                torch.ones_like(tensor) if tensor.dtype == torch.int64 else torch.rand_like(tensor)
            )


def test_teacher_starts_as_a_copy_that_shares_no_memory(model):
    student, teacher = model.student.state_dict(), model.teacher.state_dict()
    assert student.keys() == teacher.keys()
    for key in student:
        assert torch.equal(student[key], teacher[key])
        assert student[key].data_ptr() != teacher[key].data_ptr()


def test_teacher_stays_in_eval_and_without_gradient(model):
    model.train()
    assert model.student.training
    assert not any(module.training for module in model.teacher.modules())
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters())


@pytest.mark.parametrize('average_buffers', [True, False])
def test_update_is_the_average_of_weights_and_float_buffers(model, average_buffers):
    disturb(model.student)
    student = {key: value.clone() for key, value in model.student.state_dict().items()}
    before = {key: value.clone() for key, value in model.teacher.state_dict().items()}
    model.update_teacher(0.9, average_buffers)
    buffers = {key for key, _ in model.teacher.named_buffers()}
    for key, value in model.teacher.state_dict().items():
        if not value.is_floating_point() or (key in buffers and not average_buffers):
            assert torch.equal(value, student[key])
        else:
            torch.testing.assert_close(value, 0.9 * before[key] + 0.1 * student[key])
    assert model.ema_steps == 1


@pytest.mark.parametrize('average_buffers', [True, False])
def test_masks_of_infinite_values_stay(model, average_buffers):
    """An average of infinities would be NaN."""
    mask = torch.full((3, 3), float('-inf')).triu(1)
    for network in (model.student, model.teacher):
        network.backbone.register_buffer('mask', mask.clone())
    model.start_teacher()
    for decay in (0.0, 0.9):
        model.update_teacher(decay, average_buffers)
    assert torch.equal(model.teacher.backbone.mask, mask)
    model.student.backbone.mask.fill_(0.5)
    model.update_teacher(0.9, average_buffers)
    assert (model.teacher.backbone.mask == 0.5).all()


def test_decay_zero_copies_exactly(model):
    disturb(model.student)
    model.update_teacher(0.0)
    for key, value in model.student.state_dict().items():
        assert torch.equal(model.teacher.state_dict()[key], value)


def test_moving_the_model_does_not_leave_the_average_behind(model):
    model.update_teacher(0.5)
    model.double()
    disturb(model.student)
    model.update_teacher(0.0)
    for key, value in model.student.state_dict().items():
        assert torch.equal(model.teacher.state_dict()[key], value)


def test_start_copies_the_student_unless_a_checkpoint_brought_a_teacher(model):
    disturb(model.student)
    other = MODELS.build({'type': 'IMAS', 'segmentor': tiny_segmentor()})
    disturb(other.teacher)
    other.start_teacher()
    assert torch.equal(
        other.teacher.decode_head.conv_seg.weight, other.student.decode_head.conv_seg.weight
    )
    model.load_state_dict(model.state_dict())
    before = model.teacher.decode_head.conv_seg.weight.clone()
    model.start_teacher()
    assert torch.equal(model.teacher.decode_head.conv_seg.weight, before)
    assert not torch.equal(before, model.student.decode_head.conv_seg.weight)


def test_pretrained_weights_of_the_method_reach_both_networks(model, tmp_path):
    disturb(model.student)
    torch.save({'state_dict': model.student.state_dict()}, tmp_path / 'plain.pth')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'plain.pth')}
    loaded = MODELS.build({'type': 'IMAS', 'segmentor': tiny_segmentor(), 'init_cfg': init_cfg})
    loaded.init_weights()
    for key, value in model.student.state_dict().items():
        assert torch.equal(loaded.student.state_dict()[key], value)
        assert torch.equal(loaded.teacher.state_dict()[key], value)
