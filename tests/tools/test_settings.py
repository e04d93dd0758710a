import importlib.util
from pathlib import Path

import pytest
from mmseg.registry import MODELS

from mmseg_semi.models import FixMatch, SemiSegmentor
from mmseg_semi.models.settings import MethodSettings, setting

TOOL = Path(__file__).parents[2] / 'tools' / 'settings.py'

spec = importlib.util.spec_from_file_location('settings_tool', TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


class Method(SemiSegmentor):
    class Settings(MethodSettings):
        tau: float = setting(0.95, 'Confidence that counts.', low=0, high=1, source='Eq. 4')
        joint: bool = setting(False, 'One forward.', reading='one forward or two')


class Bare(SemiSegmentor):
    """A method that declares nothing."""

    Settings = None


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, 'Method', Method)
    monkeypatch.setitem(MODELS.module_dict, 'Bare', Bare)


def error_of(*arguments):
    with pytest.raises(SystemExit) as caught:
        tool.main(list(arguments))
    return str(caught.value)


def test_the_table_of_a_method(capsys):
    tool.main(['Method'])
    assert capsys.readouterr().out.splitlines() == [
        '| Setting | Type | Default | Meaning | Source |',
        '| --- | --- | --- | --- | --- |',
        '| `tau` | a number, in [0, 1] | `0.95` | Confidence that counts. | Eq. 4 |',
        '| `joint` | True or False | `False` | One forward. | our reading |',
    ]


def test_a_method_without_settings_is_told_what_to_add():
    assert error_of('Bare') == (
        'error: Bare declares no settings. Add a class Settings(MethodSettings) to it, as '
        'mmseg_semi/models/settings.py shows.'
    )


def test_an_unknown_method_is_told_the_known_ones():
    message = error_of('Methods')
    assert message.startswith("error: 'Methods' is not a method. Choose one of ")
    assert {FixMatch.__name__, 'Method', 'Bare'} <= set(
        message[:-1].split('one of ')[1].split(', ')
    )


def test_a_network_is_not_a_method():
    assert "'EncoderDecoder' is not a method" in error_of('EncoderDecoder')


def test_help_says_what_is_printed(capsys):
    with pytest.raises(SystemExit) as caught:
        tool.main(['--help'])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert 'METHOD' in said
    assert 'Markdown table' in said
