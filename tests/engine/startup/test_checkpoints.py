"""Checkpoints of another method, of other classes or of another encoder, in trainings and tests."""

import contextlib
import re

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmseg.models.backbones import ResNetV1c
from mmseg.registry import MODELS
from tiny import tiny_segmentor
from tiny_run import build_runner, tiny_config

ONE_ITERATION = {
    'train_cfg__max_iters': 1,
    'train_cfg__val_interval': 9,
    'default_hooks__checkpoint__interval': -1,
    'optim_wrapper__optimizer__lr': 0.0,
}
WEIGHT = 'backbone.layer1.0.conv1.weight'
HEAD = 'decode_head.conv_seg.weight'


@MODELS.register_module()
class AdaptedResNet(ResNetV1c):
    """An encoder with small adapters, as LoRA adds them."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.lora_a = torch.nn.Parameter(torch.ones(4, 2))


@MODELS.register_module()
class UnsavedResNet(ResNetV1c):
    """A frozen encoder whose weights are in no checkpoint."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self._register_state_dict_hook(self._leave_out)

    @staticmethod
    def _leave_out(module, state_dict, prefix, *_) -> None:
        for key in [key for key in state_dict if key.startswith(prefix)]:
            del state_dict[key]


class Started(Hook):
    """Ends a training before its first iteration, and keeps what it would have begun with."""

    class Stop(Exception):
        pass

    def before_train(self, runner) -> None:
        self.state = runner.model.state_dict()
        raise self.Stop


def save(folder, method, seed=1, meta=True, name='other.pth', **changes):
    """A checkpoint of a method, or of the plain network, with weights of its own in all networks."""
    config = tiny_config(folder, method, **changes)
    torch.manual_seed(seed)
    model = MODELS.build(config.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
        for key, buffer in model.named_buffers():
            if buffer.is_floating_point() and not key.startswith('data_pre'):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    state = model.state_dict()
    found = {'state_dict': state, 'meta': {'cfg': config.pretty_text} if meta else {}}
    torch.save(found, folder / name)
    return folder / name, state


def messages(folder):
    return [line for path in folder.glob('work/*/*.log') for line in path.read_text().splitlines()]


def run(folder, method, path, train, **changes):
    changes = {**ONE_ITERATION, 'load_from': str(path), **changes}
    runner = build_runner(tiny_config(folder / 'work', method, **changes))
    if not train:
        runner.test()
        return runner.model.state_dict()
    hook = Started()
    runner.register_hook(hook, 'LOWEST')
    with contextlib.suppress(Started.Stop):
        runner.train()
    return hook.state


def check_one_line(folder, number):
    """What MMEngine would list on a page stands in one line."""
    lines = messages(folder)
    assert sum('Only the matching weights of' in line for line in lines) == number
    assert not [line for line in lines if 'do not match exactly' in line]


# Method of the checkpoint, of the run, and where each network of the run is taken from.
MATCHES = [
    ('CPS', 'IMAS', {'student': 'student1', 'teacher': 'student1'}),
    ('GPS', 'IMAS', {'student': 'student1', 'teacher': 'student1'}),
    ('GPS', 'UniMatch', {'student': 'student1'}),
    ('GPS', 'CPS', {'student1': 'student1', 'student2': 'student2'}),
    ('IMAS', 'FixMatch', {'student': 'teacher'}),
    ('PrevMatch', 'IMAS', {'student': 'student', 'teacher': 'student'}),
    ('UniMatch', 'IMAS', {'student': 'student', 'teacher': 'student'}),
    ('CorrMatch', 'IMAS', {'student': 'student', 'teacher': 'student'}),
    ('IMAS', 'CorrMatch', {'student': 'teacher'}),
    ('IMAS', 'MeanTeacher', {'student': 'student', 'teacher': 'teacher'}),
    ('U2PL', 'IMAS', {'student': 'student', 'teacher': 'teacher'}),
    ('IMAS', None, {'': 'teacher'}),
    ('CPS', None, {'': 'student1'}),
    ('GPS', None, {'': 'student1'}),
    ('CorrMatch', None, {'': 'student'}),
    ('U2PL', None, {'': 'teacher'}),
]


@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize(('trained', 'method', 'taken'), MATCHES)
def test_networks_of_another_method_are_matched(trained, method, taken, train, tmp_path):
    path, state = save(tmp_path, trained)
    found = run(tmp_path, method, path, train)
    for network, source in taken.items():
        start = f'{network}.' if network else ''
        for key in (WEIGHT, HEAD):
            assert torch.equal(found[start + key], state[f'{source}.{key}']), (network, key)
    told = [line for line in messages(tmp_path) if f'The checkpoint of {trained} has' in line]
    single = len(set(taken.values())) == 1
    assert len(told) == single
    if single:
        (source,) = set(taken.values())
        assert f'loads the {source}, which predicts.' in told[0]
    # The correlator of CorrMatch is in no other checkpoint. What another method has beside these networks, such
    # as the teacher of GPS and the memory of U2PL, is left out.
    check_one_line(tmp_path, int(train and method == 'CorrMatch'))


def test_network_that_predicts_is_the_one_of_the_checkpoints_config(tmp_path):
    path, state = save(tmp_path, 'IMAS', model__semi_test_cfg={'predict_on': 'student'})
    found = run(tmp_path, None, path, False)
    assert torch.equal(found[WEIGHT], state[f'student.{WEIGHT}'])


@pytest.mark.parametrize(('trained', 'source'), [('IMAS', 'teacher'), ('GPS', 'student1')])
def test_without_a_config_the_networks_say_what_predicts(trained, source, tmp_path):
    path, state = save(tmp_path, trained, meta=False)
    found = run(tmp_path, None, path, False)
    assert torch.equal(found[WEIGHT], state[f'{source}.{WEIGHT}'])


def test_unknown_networks_are_not_guessed(tmp_path):
    _, state = save(tmp_path, 'CPS')
    state = {re.sub('^student', 'pupil', key): value for key, value in state.items()}
    torch.save({'state_dict': state}, tmp_path / 'pupils.pth')
    with pytest.raises(
        ValueError, match=r'networks pupil1, pupil2 but does not say which .* --network'
    ):
        run(tmp_path, None, tmp_path / 'pupils.pth', False)


@pytest.mark.parametrize('method', ['IMAS', 'CPS', None])
@pytest.mark.parametrize('train', [True, False])
def test_checkpoint_that_matches_nothing_stops_the_run(method, train, tmp_path):
    weights = ResNetV1c(depth=18).state_dict()
    torch.save({'state_dict': weights}, tmp_path / 'encoder.pth')
    with pytest.raises(ValueError, match=r'init_cfg=dict|does not fit the network') as error:
        run(tmp_path, method, tmp_path / 'encoder.pth', train)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('trained', 'method'),
    [
        ('CPS', 'IMAS'),
        ('IMAS', None),
        (None, 'IMAS'),
        ('UniMatch', 'PrevMatch'),
        ('FixMatch', 'CorrMatch'),
    ],
)
def test_training_of_another_method_is_not_resumed(trained, method, tmp_path):
    path, _ = save(tmp_path, trained)
    kind = trained or 'EncoderDecoder'
    with pytest.raises(ValueError, match=rf'resume=True continues .*other\.pth is from {kind}'):
        run(tmp_path, method, path, True, resume=True)


@pytest.mark.parametrize('method', ['IMAS', 'ESL', 'U2PL', 'DeS4', 'GPS', 'UniMatchV2', None])
def test_training_starts_from_a_plain_checkpoint_of_other_classes(method, tmp_path):
    path, state = save(tmp_path, None, **{'model__decode_head__num_classes': 7})
    found = run(tmp_path, method, path, True)
    model = tiny_config(tmp_path, method).model
    networks = MODELS.get(model.type).networks if method else ['']
    for name in networks:
        start = f'{name}.' if name else ''
        assert torch.equal(found[start + WEIGHT], state[WEIGHT])
        key = f'{start}decode_head.convs.0.conv.weight'
        assert torch.equal(found.get(key, state[key[len(start) :]]), state[key[len(start) :]])
    if method == 'DeS4':  # whose classifier is none of a plain network's
        check_one_line(tmp_path, 0)
    else:
        check_one_line(tmp_path, 1)
        (line,) = (line for line in messages(tmp_path) if 'Only the matching weights of' in line)
        assert re.search(r'conv_seg\.\S+ \(7,.* in the file and \(\d, .* here', line)


@pytest.mark.parametrize('method', ['IMAS', 'ESL', 'U2PL', 'DeS4', 'GPS'])
def test_training_starts_from_its_own_checkpoint_of_other_classes(method, tmp_path):
    """Memories and prototypes of other classes are left out as a whole.

    So are counters. A teacher with a new head starts as a copy of the student, whose head is another one.
    """
    path, state = save(tmp_path, method, **{'model__segmentor__decode_head__num_classes': 7})
    if 'ema_steps' in state:
        state['ema_steps'].fill_(3000)
        torch.save({**torch.load(path, weights_only=False), 'state_dict': state}, path)
    found = run(tmp_path, method, path, True)
    copied = 'ema_steps' in state
    for name in MODELS.get(method).networks:
        source = 'student' if copied else name
        assert torch.equal(found[f'{name}.{WEIGHT}'], state[f'{source}.{WEIGHT}'])
    if copied:
        assert found['ema_steps'] == 0
        for key in (key for key in found if key.startswith('student.')):
            assert torch.equal(found[key.replace('student', 'teacher', 1)], found[key]), key
    check_one_line(tmp_path, 1)


def test_training_from_its_own_checkpoint_continues_its_counters(tmp_path):
    path, state = save(tmp_path, 'CorrMatch')
    state['threshold.value'].fill_(0.97)
    torch.save({'state_dict': state, 'meta': {}}, path)
    assert run(tmp_path, 'CorrMatch', path, True)['threshold.value'] == torch.tensor(0.97)
    other, _ = save(tmp_path, 'CorrMatch', **{'model__segmentor__decode_head__num_classes': 7})
    weights = torch.load(other, weights_only=False)
    weights['state_dict']['threshold.value'].fill_(0.97)
    torch.save(weights, other)
    started = run(tmp_path, 'CorrMatch', other, True)['threshold.value']
    tau = tiny_config(tmp_path, 'CorrMatch').model.semi_train_cfg.get('tau_start', 0.85)
    assert started == torch.tensor(tau)


def test_counters_of_a_head_with_other_layers_start_again(tmp_path):
    """No weight has another shape, but layers of the new head are not in the checkpoint."""
    key = 'model__segmentor__decode_head'
    head = tiny_config(tmp_path).model.segmentor.decode_head
    aspp = {name: head[name] for name in head if name not in ('num_convs', 'concat_input')}
    aspp |= {'_delete_': True, 'type': 'ASPPHead', 'dilations': (1, 2)}
    for changes, steps in (({key: aspp}, 14), ({}, 0)):
        path, state = save(tmp_path, 'IMAS', **changes)
        torch.save({'state_dict': {**state, 'ema_steps': torch.tensor(14)}, 'meta': {}}, path)
        found = run(tmp_path, 'IMAS', path, True, **{key: aspp})
        assert found['ema_steps'] == steps
        assert torch.equal(found[f'student.{HEAD}'], state[f'student.{HEAD}'])
        # The teacher of a new head is a copy of the student.
        taken = 'teacher' if steps else 'student'
        assert torch.equal(found[f'teacher.{HEAD}'], state[f'{taken}.{HEAD}'])


@pytest.mark.parametrize(
    ('method', 'memory'),
    [('ESL', 'contrast.prototypes'), ('U2PL', 'contrast.bank'), ('DeS4', 'prototypes')],
)
def test_states_are_loaded_as_a_whole_or_not_at_all(method, memory, tmp_path):
    _, state = save(tmp_path, method, **{'model__segmentor__decode_head__num_classes': 7})
    state = {
        key: torch.ones_like(value) if key.startswith(f'{memory}.') else value
        for key, value in state.items()
    }
    model = MODELS.build(tiny_config(tmp_path, method).model)
    before = {k: v.clone() for k, v in model.state_dict().items() if k.startswith(f'{memory}.')}
    assert len(before) > 1
    model.loads_partly, model.misfits = True, {}
    _load_checkpoint_to_model(model, {'state_dict': state})
    for key, value in before.items():
        assert torch.equal(model.state_dict()[key], value), key


@pytest.mark.parametrize('method', ['UniMatchV2', 'MeanTeacher', 'IMAS', 'FixMatch'])
def test_states_of_another_method_are_left_out_without_a_warning(method, tmp_path):
    """All networks are loaded, so nothing is to be told."""
    path, state = save(tmp_path, 'UniMatchV2', **{'model__semi_train_cfg__adjust_logits': True})
    assert 'adjustment.shares' in state
    found = run(tmp_path, method, path, True)
    for name in MODELS.get(method).networks:
        taken = 'teacher' if method == 'FixMatch' else name
        assert torch.equal(found[f'{name}.{WEIGHT}'], state[f'{taken}.{WEIGHT}'])
    check_one_line(tmp_path, 0)


@pytest.mark.parametrize('method', ['IMAS', None])
def test_network_of_other_classes_is_not_scored(method, tmp_path):
    key = 'model__segmentor__decode_head__num_classes'
    key = key if method else key.replace('segmentor__', '')
    path, _ = save(tmp_path, method, **{key: 7})
    with pytest.raises(ValueError, match=r'conv_seg\S+ .*\(7,.* classes\.'):
        run(tmp_path, method, path, False)


@pytest.mark.parametrize('method', ['IMAS', None])
def test_network_with_weights_that_are_not_in_the_file_is_not_scored(method, tmp_path):
    path, state = save(tmp_path, method)
    key = f'teacher.{HEAD}' if method else HEAD
    del state[key]
    torch.save({'state_dict': state}, path)
    with pytest.raises(ValueError, match=r'decode_head\.conv_seg\.weight'):
        run(tmp_path, method, path, False)


@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize('method', ['IMAS', None])
def test_prefixes_of_other_tools(method, train, tmp_path):
    """DistributedDataParallel's before all keys, and what mmcv's EMAHook left beside the weights."""
    path, state = save(tmp_path, None)
    ema = {f'ema_{key.replace(".", "_")}': value for key, value in state.items()}
    state = {f'module.{key}': value for key, value in {**state, **ema}.items()}
    torch.save({'state_dict': state}, path)
    found = run(tmp_path, method, path, train)
    start = 'teacher.' if method else ''
    assert torch.equal(found[start + HEAD], state[f'module.{HEAD}'])
    check_one_line(tmp_path, 0)


def test_method_behind_distributed_data_parallel(tmp_path):
    path, state = save(tmp_path, 'IMAS')
    torch.save({'state_dict': {f'module.{key}': value for key, value in state.items()}}, path)
    found = run(tmp_path, None, path, False)
    assert torch.equal(found[HEAD], state[f'teacher.{HEAD}'])


@pytest.mark.parametrize('method', ['IMAS', None])
@pytest.mark.parametrize(
    ('saved', 'own'), [('ResNetV1c', 'AdaptedResNet'), ('AdaptedResNet', 'ResNetV1c')]
)
def test_training_with_adapters_starts_from_a_checkpoint_without_and_back(
    saved, own, method, tmp_path
):
    path, state = save(tmp_path, None, **{'model__backbone__type': saved})
    key = 'model__segmentor__backbone__type' if method else 'model__backbone__type'
    found = run(tmp_path, method, path, True, **{key: own})
    start = 'student.' if method else ''
    assert torch.equal(found[start + WEIGHT], state[WEIGHT])
    check_one_line(tmp_path, 1)


@pytest.mark.parametrize('method', ['IMAS', None])
def test_training_with_a_frozen_encoder_that_no_checkpoint_holds(method, tmp_path):
    path, state = save(tmp_path, None, **{'model__backbone__type': 'UnsavedResNet'})
    assert WEIGHT not in state
    key = 'model__segmentor__backbone__type' if method else 'model__backbone__type'
    found = run(tmp_path, method, path, True, **{key: 'UnsavedResNet'})
    assert torch.equal(found[('student.' if method else '') + HEAD], state[HEAD])
    check_one_line(tmp_path, 0)


@pytest.mark.parametrize('method', ['IMAS', None])
@pytest.mark.parametrize('depth', [(18, 34), (34, 18)])
def test_training_from_less_than_the_encoder_is_refused(method, depth, tmp_path):
    path, _ = save(tmp_path, None, **{'model__backbone__depth': depth[0]})
    key = 'model__segmentor__backbone__depth' if method else 'model__backbone__depth'
    if depth == (34, 18):  # of which all that this encoder has fits
        run(tmp_path, method, path, True, **{key: depth[1]})
        check_one_line(tmp_path, 1)
        return
    with pytest.raises(ValueError, match=r'other\.pth has 5\d% of the encoder of the \w+ of this'):
        run(tmp_path, method, path, True, **{key: depth[1]})


def test_fewer_channels_of_the_encoder_are_refused(tmp_path):
    path, _ = save(
        tmp_path,
        None,
        **{'model__backbone__base_channels': 8, 'model__decode_head__in_channels': 64},
    )
    with pytest.raises(ValueError, match=r'has \d% of the encoder of the student'):
        run(tmp_path, 'IMAS', path, True)


def test_weights_without_a_frame_are_a_checkpoint_too(tmp_path):
    _, state = save(tmp_path, 'IMAS')
    torch.save(dict(state), tmp_path / 'bare.pth')
    found = run(tmp_path, None, tmp_path / 'bare.pth', False)
    assert torch.equal(found[HEAD], state[f'teacher.{HEAD}'])


def test_tiny_segmentor_is_what_the_names_above_are_of():
    network = MODELS.build({**tiny_segmentor(), 'data_preprocessor': None}).state_dict()
    assert {WEIGHT, HEAD} <= network.keys()
