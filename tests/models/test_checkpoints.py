"""Weights that cannot be downloaded are asked for in one sentence, wherever a training or a tool wants them."""

import errno
import os
import urllib.request
from urllib.error import URLError

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader
from mmseg.registry import MODELS
from tiny import tiny_segmentor
from tiny_run import build_runner, tiny_config

from mmseg_semi.models import checkpoints, read_checkpoint

# Nothing listens there, with or without a network.
ADDRESS = 'http://127.0.0.1:9/weights/vit.pth'


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    for variable in ('http_proxy', 'https_proxy', 'all_proxy'):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    return tmp_path / 'cache' / 'hub' / 'checkpoints'


def check_sentence(error, address, cache):
    text = str(error.value)
    assert text.startswith(f'{address} could not be downloaded (')
    assert f'save it as {cache / address.rpartition("/")[2]}' in text
    assert text.count('. ') <= 1
    assert '\n' not in text


def test_address_and_place_are_named(empty_cache):
    with pytest.raises(ConnectionError) as error:
        CheckpointLoader.load_checkpoint(ADDRESS, map_location='cpu')
    check_sentence(error, ADDRESS, empty_cache)
    assert 'refused' in str(error.value)
    with pytest.raises(ConnectionError) as error:
        read_checkpoint(ADDRESS)
    check_sentence(error, ADDRESS, empty_cache)


@pytest.mark.parametrize('name', ['open-mmlab://resnet50_v1c', 'torchvision://resnet50'])
def test_names_of_public_weights_lead_to_their_address(name, empty_cache, monkeypatch):
    asked = []

    def offline(request, *args, **kwargs):
        asked.append(request.full_url)
        raise URLError('Name or service not known')

    monkeypatch.setattr(urllib.request, 'urlopen', offline)
    monkeypatch.setattr('torch.hub.urlopen', offline)
    with pytest.raises(ConnectionError) as error:
        CheckpointLoader.load_checkpoint(name, map_location='cpu')
    (address,) = asked
    assert address.startswith('https://')
    check_sentence(error, address, empty_cache)


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_does_not_take_the_file_is_not_called_a_network(
    number, empty_cache, monkeypatch
):
    def full(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr('torch.hub.download_url_to_file', full)
    with pytest.raises(OSError, match='could not be saved as') as error:
        read_checkpoint(ADDRESS)
    assert not isinstance(error.value, ConnectionError)
    assert error.value.errno == number
    assert os.strerror(number) in str(error.value)
    assert str(empty_cache / 'vit.pth') in str(error.value)


def check_half(error, cache):
    assert 'was downloaded incompletely' in str(error.value)
    assert f'Remove {cache / "vit.pth"} if it exists' in str(error.value)
    assert '\n' not in str(error.value)


def test_half_a_download_is_said_to_be_one(empty_cache, monkeypatch):
    empty_cache.mkdir(parents=True)
    torch.save({'state_dict': {'a': torch.ones(2000)}}, empty_cache / 'vit.pth')
    whole = (empty_cache / 'vit.pth').read_bytes()
    (empty_cache / 'vit.pth').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConnectionError) as error:
        read_checkpoint(ADDRESS)
    check_half(error, empty_cache)

    def broken(*args, **kwargs):
        raise RuntimeError('invalid hash value (expected "5641ca5a", got "00")')

    (empty_cache / 'vit.pth').unlink()
    monkeypatch.setattr('torch.hub.download_url_to_file', broken)
    with pytest.raises(ConnectionError) as error:
        read_checkpoint(ADDRESS)
    check_half(error, empty_cache)


@pytest.mark.parametrize('resume', [False, True])
@pytest.mark.parametrize('content', ['half', 'text', 'nothing'])
def test_a_file_that_is_not_a_whole_checkpoint_is_named(content, resume, tmp_path):
    """In every way to load it, not only by the tools of this package."""
    path = tmp_path / 'iter_2.pth'
    torch.save({'state_dict': {'w': torch.zeros(64, 64)}}, path)
    whole = path.read_bytes()
    path.write_bytes(
        {'half': whole[: len(whole) // 2], 'text': b'no checkpoint', 'nothing': b''}[content]
    )
    cfg = tiny_config(tmp_path / 'run', 'FixMatch', load_from=str(path), resume=resume)
    with pytest.raises(
        ValueError, match=r'iter_2\.pth is not a checkpoint or only a part of one'
    ) as error:
        build_runner(cfg).train()
    assert 'last_checkpoint' in str(error.value)
    with pytest.raises(ValueError, match=r'iter_2\.pth is not a checkpoint or only a part of one'):
        read_checkpoint(str(path))


def test_file_in_its_place_needs_no_network(empty_cache):
    empty_cache.mkdir(parents=True)
    torch.save({'state_dict': {'a': torch.ones(2)}}, empty_cache / 'vit.pth')
    assert read_checkpoint(ADDRESS)['state_dict']['a'].tolist() == [1, 1]


@pytest.mark.parametrize('method', ['IMAS', None])
@pytest.mark.parametrize('part', ['backbone', 'decode_head'])
def test_training_says_it_before_the_first_iteration(method, part, tmp_path, empty_cache):
    """Whichever module has the init_cfg; None trains the stock network."""
    config = tiny_config(tmp_path / 'work', method)
    network = config.model.segmentor if method else config.model
    network[part].init_cfg = {'type': 'Pretrained', 'checkpoint': ADDRESS, 'prefix': 'backbone.'}
    runner = build_runner(config)
    with pytest.raises(ConnectionError) as error:
        runner.train()
    check_sentence(error, ADDRESS, empty_cache)
    assert runner.iter == 0


def test_weights_to_start_from_are_asked_for_alike(tmp_path, empty_cache):
    config = tiny_config(tmp_path / 'work', load_from=ADDRESS)
    with pytest.raises(ConnectionError) as error:
        build_runner(config).train()
    check_sentence(error, ADDRESS, empty_cache)


def test_network_with_weights_of_its_own_downloads_once(tmp_path, empty_cache, monkeypatch):
    """The teacher starts as the student's copy."""
    empty_cache.mkdir(parents=True)
    plain = MODELS.build({**tiny_segmentor(), 'data_preprocessor': None})
    torch.save({'state_dict': plain.backbone.state_dict()}, empty_cache / 'vit.pth')
    loads = []
    load = checkpoints.load_data
    monkeypatch.setattr(
        checkpoints,
        'load_data',
        lambda *args, **kwargs: loads.append(args) or load(*args, **kwargs),
    )
    segmentor = tiny_segmentor()
    segmentor['backbone']['init_cfg'] = {'type': 'Pretrained', 'checkpoint': ADDRESS}
    model = MODELS.build({'type': 'IMAS', 'segmentor': segmentor})
    model.init_weights()
    assert len(loads) == 1
    for network in (model.student, model.teacher):
        for key, value in plain.backbone.state_dict().items():
            assert torch.equal(network.backbone.state_dict()[key], value)
