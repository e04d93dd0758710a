"""The auxiliary head of a joint forward: it sees the whole joint batch and answers for the labeled images."""

import copy

import pytest
import torch
from mmseg.registry import MODELS
from tiny import collated_batch, tiny_segmentor, unlabeled_sample

NUM_LABELED, NUM_UNLABELED = 2, 3
HEADS = {'channels': 8, 'out_channels': 8}
#: Every method that passes labeled and unlabeled images together, and images in that pass.
JOINT = {
    'iMAS': ('IMAS', {'tau': 0.28}, 2 + 3 + 3),
    'iMAS, weak view': ('IMAS', {'tau': 0.28, 'weak_in_joint_forward': True}, 2 + 3 + 3 + 3),
    'iMAS, CutMix alone': ('IMAS', {'tau': 0.28, 'intensity': None}, 2 + 3),
    'Mean Teacher': ('MeanTeacher', {}, 2 + 3),
    'CutMix-Seg': ('CutMixSeg', {'tau': 0.28}, 2 + 3),
    'FixMatch, weak view': ('FixMatch', {'tau': 0.28}, 2 + 3),
    'FixMatch, both': ('FixMatch', {'tau': 0.28, 'joint_forward': True}, 2 + 3 + 3),
    # The perturbed features of the weak view pass the heads, too.
    'UniMatch, weak view': ('UniMatch', {'tau': 0.28}, 2 + 3 + 3),
    'UniMatch, all': ('UniMatch', {'tau': 0.28, 'joint_forward': True}, 2 + 3 * 3 + 3),
    'PrevMatch': ('PrevMatch', {'tau': 0.28}, 2 + 3 + 3),
    'CorrMatch': ('CorrMatch', {'tau_start': 0.28, 'channels': 8}, 2 + 3 + 3),
    'UniMatch V2': ('UniMatchV2', {'tau': 0.28, 'joint_forward': True}, 2 + 3 + 3),
    'U2PL': ('U2PL', {'representation': HEADS, 'queue_size': 20, 'background_queue_size': 30}, 2 + 3),
    'ESL': ('ESL', {'num_parts': 2, 'queue_size': 3, 'projector': HEADS}, 2 + 3),
    'DeS4': ('DeS4', {}, 2 + 3),
}  # fmt: skip
#: Settings with which labeled images pass by themselves.
SEPARATE = {
    'iMAS': ('IMAS', {'tau': 0.28, 'joint_forward': False}),
    'Mean Teacher': ('MeanTeacher', {'joint_forward': False}),
    'FixMatch': ('FixMatch', {'tau': 0.28, 'label_mode': 'eval'}),
    'UniMatch V2': ('UniMatchV2', {'tau': 0.28}),
    'CPS': ('CPS', {'cutmix': None}),
}


def build(method, settings):
    torch.manual_seed(0)
    segmentor = tiny_segmentor('BN', auxiliary=True)
    config = {'type': method, 'segmentor': segmentor, 'semi_train_cfg': settings}
    return MODELS.build(config).train()


def batch_of(model):
    """A batch whose unlabeled images have padding of different sizes."""
    batch = collated_batch(NUM_LABELED, NUM_UNLABELED)
    for index in range(NUM_UNLABELED):
        valid = torch.ones(32, 32, dtype=torch.bool)
        valid[32 - 5 * index :] = False
        valid[:, 30 - 3 * index :] = False
        for branch in ('weak', 'strong', 'strong2'):
            batch['data_samples'][branch][index] = unlabeled_sample(valid)
    return model.data_preprocessor(batch, True)


def watch(head, seen):
    """Note the features that a head gets where gradients flow; methods call its `forward`, past hooks."""
    forward = head.forward

    def watched(features):
        if torch.is_grad_enabled() and features[-1].requires_grad:
            seen.append([stage.detach() for stage in features])
        return forward(features)

    head.forward = watched


def optimized(model):
    return getattr(model, model.networks[0])


@pytest.mark.parametrize('name', JOINT)
def test_the_head_sees_the_whole_joint_batch(name):
    method, settings, number = JOINT[name]
    model = build(method, settings)
    batch, network, passes = batch_of(model), optimized(model), []
    head, expected = network.auxiliary_head, copy.deepcopy(network.auxiliary_head)
    watch(network.decode_head, passes)
    losses = model.loss(**batch)
    features = passes[0]  # of the pass with the labeled images, which comes first

    # By hand: all pass the head, the labeled ones are sliced off.
    logits = expected(features)
    assert len(logits) == number
    label = torch.cat([sample.gt_sem_seg.data for sample in batch['data_samples']['labeled']])
    full = torch.nn.functional.interpolate(logits[:NUM_LABELED], size=(32, 32), mode='bilinear')
    by_hand = 0.4 * torch.nn.functional.cross_entropy(full, label, ignore_index=255)
    weight = model.cfg.labeled_weight
    torch.testing.assert_close(losses['aux.loss_ce'], weight * by_hand)

    losses['aux.loss_ce'].backward()
    (weight * by_hand).backward()
    parameters = dict(head.named_parameters())
    for key, parameter in expected.named_parameters():
        torch.testing.assert_close(parameters[key].grad, parameter.grad)
    buffers = dict(head.named_buffers())
    assert any('running_mean' in key for key in buffers)
    for key, buffer in expected.named_buffers():
        torch.testing.assert_close(buffers[key], buffer)


@pytest.mark.parametrize('name', SEPARATE)
def test_labeled_images_that_pass_alone_are_all_that_the_head_sees(name):
    model = build(*SEPARATE[name])
    seen = []
    watch(optimized(model).auxiliary_head, seen)
    assert 'aux.loss_ce' in str(list(model.loss(**batch_of(model))))
    assert [len(features[-1]) for features in seen] == [NUM_LABELED]
