import importlib.util
import sys
from pathlib import Path

import pytest
from mmseg.registry import MODELS

from mmseg_semi.models import FixMatch, SemiSegmentor
from mmseg_semi.models.settings import MethodSettings, setting

TOOL = Path(__file__).parents[2] / 'tools' / 'settings.py'

spec = importlib.util.spec_from_file_location('settings_tool', TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


OWN = """
from mmseg.registry import MODELS
from mmseg_semi.models import SemiSegmentor
from mmseg_semi.models.settings import setting


@MODELS.register_module()
class OwnMethod(SemiSegmentor):
    class Settings(SemiSegmentor.Settings):
        share: float = setting(0.2, 'Share that counts.', low=0, below=1, source='Sec. 2')
"""


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


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module outside of the package, which registers a method; gone afterwards."""
    name = 'a_method_of_their_own'
    (tmp_path / f'{name}.py').write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    MODELS.module_dict.pop('OwnMethod', None)
    sys.modules.pop(name, None)


def test_a_method_of_ones_own_is_imported_first(own_module, capsys):
    assert "'OwnMethod' is not a method" in error_of('OwnMethod')
    tool.main(['OwnMethod', '--import', own_module])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == '| `share` | a number, in [0, 1) | `0.2` | Share that counts. | Sec. 2 |'


def test_a_module_that_is_not_there_is_named():
    assert error_of('FixMatch', '--import', 'no_such_module') == (
        "error: --import no_such_module: there is no module 'no_such_module'. Add its folder to PYTHONPATH."
    )


def test_help_says_what_is_printed(capsys):
    with pytest.raises(SystemExit) as caught:
        tool.main(['--help'])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert 'METHOD' in said
    assert 'Markdown table' in said
