"""Settings of a method: what a declaration accepts, refuses, says and prints."""

import copy
import dataclasses
import pickle
import re
from typing import ClassVar, Literal

import numpy as np
import pytest
from mmengine.config import ConfigDict

from mmseg_semi.models.cutmix import AdaptiveCutMix
from mmseg_semi.models.settings import MethodSettings, build_part, setting

STYLES = ('even', 'by_class')


class Projector(MethodSettings):
    """A dict whose keys are known."""

    num_convs: int = setting(3, 'Convolutions.', low=1)
    dropout: float = setting(0.1, 'Share that is dropped.', low=0, below=1, reading='dropout')


class Contrast(MethodSettings):
    """Of a part module."""

    temperature: float = setting(0.5, 'Of the softmax.', above=0, hint='The paper takes 0.5.')
    low_rank: int = setting(3, 'First rank.', low=0)
    high_rank: int = setting(20, 'Last rank.', low=0)

    def check(self):
        super().check()
        if self.high_rank <= self.low_rank:
            raise ValueError(
                f'semi_train_cfg.high_rank must be above low_rank={self.low_rank}, got {self.high_rank}.'
            )


class Settings(MethodSettings):
    tau: float = setting(0.95, 'Confidence that counts.', low=0, high=1, source='Eq. 4')
    weight: float = setting(1.0, 'Of the loss.', low=0)
    start: int = setting(0, 'First iteration.', low=0, reading='iterations before')
    joint: bool = setting(False, 'One forward.')
    view: Literal['strong', 'weak'] = setting('strong', 'What is seen.', reading='what is seen')
    style: Literal[STYLES] = setting('even', 'How it draws.')
    pasted: Literal['pair', 'in_batch'] | None = setting('pair', 'Where patches come from.')
    top: int | None = setting(None, 'Classes that are kept.', low=1, source='Eq. 5', reading='k')
    ratio: float = setting(0.1, 'A share.', above=0, high=1)
    upper: float = setting(-1, 'A bound from above.', below=0)
    checkpoint: str | None = setting(None, 'A file.')
    cutmix: dict | None = setting(
        {'type': 'Cut', 'prob': 0.5, 'style': 'u2pl'},
        'CutMix; None leaves it out.',
        reading='boxes',
    )
    options: dict = setting({}, 'Of the head.')
    projector: Projector = setting(Projector({'num_convs': 2}), 'The projector.')
    head: Projector | None = setting(None, 'The deep head.')


class Method:
    """A method's class, in which the settings are usually declared."""

    class Settings(Settings, Contrast):
        tau = 0.5
        cutmix = {'prob': 1.0}
        weight: float = setting(2.0, 'Another meaning.', low=1)


def error_of(given, cls=Settings):
    with pytest.raises(ValueError, match='semi_train_cfg') as caught:
        cls(given)
    return str(caught.value)


# ---------------------------------------------------------------------- values


def test_without_a_choice_all_defaults_hold():
    for cfg in (Settings(), Settings(None), Settings({})):
        assert (cfg.tau, cfg.start, cfg.joint, cfg.top, cfg.view) == (
            0.95,
            0,
            False,
            None,
            'strong',
        )
        assert cfg.cutmix == {'type': 'Cut', 'prob': 0.5, 'style': 'u2pl'}
        assert (cfg.projector.num_convs, cfg.projector.dropout, cfg.head) == (2, 0.1, None)


def test_a_choice_takes_the_place_of_the_default():
    given = {
        'tau': 0.3,
        'start': 7,
        'joint': True,
        'top': 2,
        'checkpoint': 'x.pth',
        'style': 'by_class',
    }
    cfg = Settings(given)
    assert {name: getattr(cfg, name) for name in given} == given


def test_a_number_may_be_an_integer_and_is_a_float_then():
    cfg = Settings({'tau': 1})
    assert cfg.tau == 1.0
    assert type(cfg.tau) is float
    assert type(Settings().upper) is float  # a default, too


def test_numpy_and_python_floats_are_numbers():
    assert Settings({'tau': np.float64(0.25)}).tau == 0.25


@pytest.mark.parametrize('name', ['pasted', 'top', 'checkpoint', 'cutmix', 'head'])
def test_none_where_the_declaration_allows_it(name):
    assert getattr(Settings({name: None}), name) is None


@pytest.mark.parametrize(
    ('name', 'value'),
    [('tau', 0), ('tau', 1), ('ratio', 1), ('ratio', 1e-9), ('start', 0), ('upper', -1e-9)],
)
def test_closed_bounds_belong_to_the_values(name, value):
    assert getattr(Settings({name: value}), name) == value


# ---------------------------------------------------------------------- errors, word by word


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'tau': 2.0}, 'semi_train_cfg.tau must be in [0, 1], got 2.0.'),
        ({'tau': -0.1}, 'semi_train_cfg.tau must be in [0, 1], got -0.1.'),
        ({'ratio': 0}, 'semi_train_cfg.ratio must be in (0, 1], got 0.'),
        ({'weight': -1}, 'semi_train_cfg.weight must be at least 0, got -1.'),
        ({'upper': 0.0}, 'semi_train_cfg.upper must be below 0, got 0.0.'),
        ({'top': 0}, 'semi_train_cfg.top must be at least 1, got 0.'),
        ({'tau': True}, 'semi_train_cfg.tau must be a number, got True.'),
        ({'start': False}, 'semi_train_cfg.start must be an integer, got False.'),
        ({'start': 0.5}, 'semi_train_cfg.start must be an integer, got 0.5.'),
        ({'start': 2.0}, 'semi_train_cfg.start must be an integer, got 2.0.'),
        ({'top': '2'}, "semi_train_cfg.top must be an integer or None, got '2'."),
        ({'tau': '0.5'}, "semi_train_cfg.tau must be a number, got '0.5'."),
        ({'tau': None}, 'semi_train_cfg.tau must be a number, got None.'),
        ({'joint': 1}, 'semi_train_cfg.joint must be True or False, got 1.'),
        ({'joint': None}, 'semi_train_cfg.joint must be True or False, got None.'),
        ({'checkpoint': 3}, 'semi_train_cfg.checkpoint must be a string or None, got 3.'),
        ({'weight': float('inf')}, 'semi_train_cfg.weight must be finite, got inf.'),
        ({'tau': float('nan')}, 'semi_train_cfg.tau must be finite, got nan.'),
        ({'upper': float('-inf')}, 'semi_train_cfg.upper must be finite, got -inf.'),
        ({'view': 'week'}, "semi_train_cfg.view must be 'strong' or 'weak', got 'week'."),
        ({'style': None}, "semi_train_cfg.style must be 'even' or 'by_class', got None."),
        (
            {'pasted': True},
            "semi_train_cfg.pasted must be 'pair', 'in_batch' or None, got True.",
        ),
        ({'cutmix': 0.5}, 'semi_train_cfg.cutmix must be a dict or None, got 0.5.'),
        ({'options': None}, 'semi_train_cfg.options must be a dict, got None.'),
        ({'projector': None}, 'semi_train_cfg.projector must be a dict, got None.'),
        (
            {'projector': {'dropout': 1}},
            'semi_train_cfg.projector.dropout must be in [0, 1), got 1.',
        ),
        (
            {'head': {'convs': 1}},
            'semi_train_cfg.head has no setting convs. Did you mean num_convs? The settings are num_convs, '
            'dropout.',
        ),
        (5, 'semi_train_cfg must be a dict, got 5.'),
    ],
)
def test_a_wrong_value_is_named_with_what_it_must_be(given, message):
    assert error_of(given) == message


def test_an_unknown_setting_is_named_with_the_closest_and_all_others():
    assert error_of({'temprature': 1}, Contrast) == (
        'semi_train_cfg has no setting temprature. Did you mean temperature? '
        'The settings are temperature, low_rank, high_rank.'
    )
    assert error_of({1: 2}, Contrast) == (
        'semi_train_cfg has no setting 1. The settings are temperature, low_rank, high_rank.'
    )


def test_a_hint_ends_the_error():
    assert error_of({'temperature': 0}, Contrast) == (
        'semi_train_cfg.temperature must be above 0, got 0. The paper takes 0.5.'
    )


def test_a_rule_between_settings_is_checked():
    assert Contrast({'low_rank': 0, 'high_rank': 1}).high_rank == 1
    assert error_of({'low_rank': 20}, Contrast) == (
        'semi_train_cfg.high_rank must be above low_rank=20, got 20.'
    )
    assert 'high_rank must be above' in error_of({'high_rank': 2}, Method.Settings)


def test_errors_call_the_dict_as_the_caller_does():
    with pytest.raises(ValueError, match=re.escape('semi_test_cfg.tau must be in [0, 1], got 3.')):
        Settings({'tau': 3}, 'semi_test_cfg')


# ---------------------------------------------------------------------- dicts


def test_a_partial_dict_is_merged_over_the_default():
    cfg = Settings({'cutmix': {'prob': 0.3}, 'options': {'a': 1}})
    assert cfg.cutmix == {'type': 'Cut', 'prob': 0.3, 'style': 'u2pl'}
    assert cfg.options == {'a': 1}


def test_a_dict_is_merged_over_the_default_of_the_method_and_not_of_its_base():
    assert Method.Settings({'cutmix': {'style': 'cps'}}).cutmix == {'prob': 1.0, 'style': 'cps'}


def test_a_dict_of_another_type_replaces_the_default():
    assert Settings({'cutmix': {'type': 'Mine'}}).cutmix == {'type': 'Mine'}
    same = Settings({'cutmix': {'type': 'Cut', 'prob': 1}}).cutmix
    assert same == {'type': 'Cut', 'prob': 1, 'style': 'u2pl'}


def test_nested_settings_are_merged_over_the_default_of_the_setting():
    cfg = Settings({'projector': {'dropout': 0.5}, 'head': {}})
    assert (cfg.projector.num_convs, cfg.projector.dropout) == (2, 0.5)
    assert (cfg.head.num_convs, cfg.head.dropout) == (3, 0.1)


def test_a_config_dict_is_accepted_and_leaves_plain_dicts():
    values = {'cutmix': {'prob': 1.0, 'more': [{'a': 1}]}, 'projector': {'num_convs': 1}}
    cfg = Settings(ConfigDict(values))
    assert cfg == Settings(values)
    assert type(cfg.cutmix) is dict
    assert type(cfg.cutmix['more'][0]) is dict


@pytest.mark.parametrize('kind', [dict, ConfigDict])
def test_what_is_given_is_never_edited_or_shared(kind):
    given = kind(cutmix=kind(prob=0.3), options=kind(a=[1]), projector=kind(num_convs=1))
    before = copy.deepcopy(given)
    cfg = Settings(given)
    cfg.options['a'].append(2)
    cfg.cutmix['style'] = 'cps'
    assert given == before


def test_defaults_are_not_shared_between_objects():
    first = Settings()
    first.cutmix['prob'] = 0.0
    assert Settings().cutmix['prob'] == 0.5
    as_dict = Settings().as_dict()
    as_dict['cutmix']['prob'] = 0.0
    as_dict['projector']['num_convs'] = 9
    assert Settings() == Settings({})


def test_as_dict_makes_the_same_settings_again():
    cfg = Settings({'tau': 0.3, 'head': {'dropout': 0}, 'cutmix': None})
    values = cfg.as_dict()
    assert values['head'] == {'num_convs': 3, 'dropout': 0.0}
    assert Settings(values) == cfg


# ---------------------------------------------------------------------- objects


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().tau = 0.5


@pytest.mark.parametrize(
    'again', [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_are_equal(again):
    cfg = Method.Settings({'tau': 0.25, 'head': {'dropout': 0.0}})
    other = again(cfg)
    assert type(other) is Method.Settings
    assert other == cfg
    assert other != Method.Settings()


def test_a_deep_copy_shares_no_dict():
    cfg = Settings()
    copy.deepcopy(cfg).cutmix['prob'] = 0.0
    assert cfg.cutmix['prob'] == 0.5


def test_the_printed_form_names_all():
    assert repr(Contrast()) == 'Contrast(temperature=0.5, low_rank=3, high_rank=20)'


# ---------------------------------------------------------------------- inheritance


def test_a_subclass_has_the_settings_of_all_its_bases():
    cfg = Method.Settings({'low_rank': 1, 'start': 2})
    assert (cfg.low_rank, cfg.start, cfg.temperature, cfg.view) == (1, 2, 0.5, 'strong')
    names = [field.name for field in dataclasses.fields(Method.Settings)]
    assert names[:3] == ['temperature', 'low_rank', 'high_rank']


def test_an_assignment_changes_the_default_alone():
    assert Method.Settings().tau == 0.5
    assert Settings().tau == 0.95
    assert error_of({'tau': 2}, Method.Settings) == 'semi_train_cfg.tau must be in [0, 1], got 2.'


def test_a_new_declaration_replaces_the_inherited_one():
    assert Method.Settings().weight == 2.0
    assert (
        error_of({'weight': 0}, Method.Settings)
        == 'semi_train_cfg.weight must be at least 1, got 0.'
    )


def test_the_nearest_class_decides_a_default_also_where_bases_meet_again():
    class Left(Settings):
        tau = 0.1

    class Right(Settings):
        start = 5

    class Both(Right, Left):
        pass

    assert (Both().tau, Both().start) == (0.1, 5)


# ---------------------------------------------------------------------- wrong declarations


def test_a_default_that_does_not_fit_is_refused_at_once():
    with pytest.raises(ValueError, match=r'The default of .*Wrong.tau must be at most 1, got 2'):

        class Wrong(MethodSettings):
            tau: float = setting(2, 'Too large.', high=1)

    with pytest.raises(ValueError, match=r'must be in \[0, 1\], got 3'):

        class Changed(Settings):
            tau = 3

    with pytest.raises(ValueError, match='high_rank must be above low_rank=3, got 1'):

        class Contradiction(Contrast):
            high_rank = 1


def test_an_annotation_without_a_declaration_is_refused():
    with pytest.raises(TypeError, match=r'Bare.tau must be declared with setting\(\)'):

        class Bare(MethodSettings):
            tau: float = 0.5

    with pytest.raises(TypeError, match=r'Bare.names must be declared'):

        class Bare(MethodSettings):
            names: ClassVar[dict] = {}


@pytest.mark.parametrize('hint', [list, tuple, int | str, dict[str, int]])
def test_a_type_that_cannot_be_checked_is_refused(hint):
    with pytest.raises(TypeError, match='cannot be the type of a setting'):
        type(
            'Wrong',
            (MethodSettings,),
            {'__annotations__': {'names': hint}, 'names': setting(None, '')},
        )


# ---------------------------------------------------------------------- the log and the table


def test_readings_are_what_the_log_prints():
    assert Settings({'top': 2, 'projector': {'dropout': 0}}).readings() == [
        'start=0: iterations before',
        'view=strong: what is seen',
        'top=2 (not the default): k',
        "cutmix={'type': 'Cut', 'prob': 0.5, 'style': 'u2pl'}: boxes",
        'projector.dropout=0.0 (not the default): dropout',
    ]


def test_the_default_of_a_reading_is_the_methods():
    class Changed(Settings):
        projector = Projector({'dropout': 0.25})

    assert Changed().readings()[-1] == 'projector.dropout=0.25: dropout'


def test_the_table_is_markdown():
    lines = Settings.table().splitlines()
    assert lines[:3] == [
        '| Setting | Type | Default | Meaning | Source |',
        '| --- | --- | --- | --- | --- |',
        '| `tau` | a number, in [0, 1] | `0.95` | Confidence that counts. | Eq. 4 |',
    ]
    rows = {line.split('`')[1]: line for line in lines[2:]}
    assert rows['view'] == (
        "| `view` | 'strong' or 'weak' | `'strong'` | What is seen. | our reading |"
    )
    assert rows['top'] == (
        '| `top` | an integer or None, at least 1 | `None` | Classes that are kept. | Eq. 5; our reading |'
    )
    assert "| `dict(type='Cut', prob=0.5, style='u2pl')` |" in rows['cutmix']
    assert rows['projector'] == '| `projector` | a dict |  | The projector. |  |'
    assert rows['projector.num_convs'].startswith(
        '| `projector.num_convs` | an integer, at least 1 | `2` |'
    )
    assert all(line.count(' | ') == 4 for line in lines)


def test_the_table_shows_the_methods_own_defaults_and_hides_no_bar():
    class Barred(MethodSettings):
        place: str = setting('a|b', 'Either a|b.')

    assert Barred.table().splitlines()[-1] == r"| `place` | a string | `'a\|b'` | Either a\|b. |  |"
    assert '| `tau` | a number, in [0, 1] | `0.5` |' in Method.Settings.table()


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'type': 'AdaptivCutMix'}, "cutmix.type='AdaptivCutMix' is neither AdaptiveCutMix nor"),
        ({'type': 'RandomFlip'}, "cutmix.type='RandomFlip' is neither AdaptiveCutMix nor"),
        (
            {'type': 'AdaptiveCutMix', 'propb': 0.5},
            "cutmix: AdaptiveCutMix got an unexpected keyword argument 'propb'. It takes adaptive, prob, ",
        ),
    ],
)
def test_a_part_that_does_not_fit_is_refused(given, message):
    with pytest.raises(ValueError, match=re.escape(f'semi_train_cfg.{message}')):
        build_part(given, AdaptiveCutMix, 'cutmix')


def test_a_part_may_be_of_a_derived_class():
    class Often(AdaptiveCutMix):
        pass

    made = build_part({'type': Often, 'prob': 0.7, 'adaptive': False}, AdaptiveCutMix, 'cutmix')
    assert (type(made), made.prob) == (Often, 0.7)
    assert build_part(None, AdaptiveCutMix, 'cutmix') is None
