"""Derive the config of a semi-supervised training from that of a supervised training."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from ..datasets.walk import first_branch
from ..models.clock import count_steps
from ..models.segmentors.mean_teacher import averages_too_long, short_decay
from .recipes import METHODS, SELF_TRAINING, Recipe, read_recipe
from .stock import (
    Pipeline,
    check_training,
    crop_size,
    image_channels,
    labeled_dataset,
    pretrained,
    read_pipeline,
)
from .text import Code, Extended, assignment, python

PACK = {'type': 'PackUnlabeledInputs'}
#: Loops of MMEngine and the loops with whole optimizer steps that replace them.
_LOOPS = {
    'IterBasedTrainLoop': 'WholeStepIterTrainLoop',
    'EpochBasedTrainLoop': 'WholeStepEpochTrainLoop',
}
#: OpenCV pads images of up to four channels.
_PAD_CHANNELS = 4
#: Strong augmentations that RandomIntensity replaces if the images do not have three channels.
_OF_COLORS = (
    'RandomColorJitter',
    'RandomGray',
    'RandomGaussianBlur',
    'RandomIntensity',
    'RandomNoiseCutout',
)
_OF_ANY_CHANNELS = {
    'type': 'RandomIntensity',
    'operations': ('identity', 'autocontrast', 'gaussian_blur', 'brightness', 'contrast'),
}


@dataclass
class Decision:
    """One line for the user on a setting of the config.

    Attributes:
        topic (str): Topic, in a word or two.
        what (str): The decision.
        why (str): The reason; may be empty.
    """

    topic: str
    what: str
    why: str = ''


@dataclass
class Made:
    """The new config.

    Attributes:
        text (str): Python text of the config.
        decisions (list[Decision]): Its settings and the reasons, in reading order.
    """

    text: str
    decisions: list[Decision] = field(default_factory=list)


def make_config(
    cfg: Config,
    name: str,
    *,
    out: str | Path,
    method: str,
    unlabeled: str,
    num_unlabeled: int,
    suffixes: list[str] | None = None,
    batch: tuple[int, int] | None = None,
) -> Made:
    """Make a semi-supervised config that inherits the config of a supervised training.

    Network, heads, losses, labeled data, geometry, crop, optimizer, schedule, length and evaluators do not
    change. The new config has no ``RepeatDataset``, since the sampler repeats images, no ``EMAHook`` with a
    method, and no ``work_dir``.

    Args:
        cfg (Config): The resolved config of the supervised training.
        name (str): Its file, or ``package::path``.
        out (str | Path): Path of the new config. References to ``cfg`` are relative to it.
        method (str): Key of :data:`METHODS`.
        unlabeled (str): Folder of unlabeled images.
        num_unlabeled (int): Number of unlabeled images.
        suffixes (list[str], optional): Suffixes of unlabeled images.
        batch (tuple[int, int], optional): Labeled and unlabeled images per batch and process. Default: the
            batch size of ``cfg`` for both.

    Raises:
        ValueError: ``cfg`` is not a supervised training, or the method cannot train it.
    """
    check_training(cfg, name)
    return _Making(cfg, name, Path(out), method, unlabeled, num_unlabeled, suffixes, batch).made()


class _Making:
    """The parts of a config with their decisions."""

    def __init__(self, cfg, name, out, method, unlabeled, num_unlabeled, suffixes, batch) -> None:
        self.cfg, self.name, self.out = cfg, name, out
        self.recipe: Recipe = read_recipe(method)
        self.self_training = method in SELF_TRAINING
        self.unlabeled, self.num_unlabeled, self.suffixes = unlabeled, num_unlabeled, suffixes
        self.batch = batch
        self.pipeline: Pipeline = read_pipeline(labeled_dataset(cfg)[1], name)
        self.size, self.size_from = crop_size(cfg, self.pipeline)
        self.by_epoch = 'max_epochs' in cfg.train_cfg
        self.channels = image_channels(cfg.model, cfg.model.get('data_preprocessor') or {})
        self.views: list[dict] = self.recipe.views if self.channels == 3 else self.without_colors()
        self.decisions: list[Decision] = []
        self.left: list[str] = []
        self.lines: list[str] = []

    def made(self) -> Made:
        self.check()
        self.say_method()
        self.write_header()
        self.write_data()
        if not self.self_training:
            self.write_model()
        self.write_training()
        self.write_runtime()
        if self.left:
            self.say('not taken over', '; '.join(self.left))
        return Made('\n'.join(self.lines) + '\n', self.decisions)

    def say(self, topic: str, what: str, why: str = '') -> None:
        self.decisions.append(Decision(topic, what, why))

    def set(self, key: str, value, comment: str = '') -> None:
        self.lines += [f'# {line}' for line in comment.splitlines()] + [assignment(key, value)]

    def check(self) -> None:
        preprocessor = self.cfg.model.get('data_preprocessor') or {}
        kind = _kind(preprocessor)
        if kind not in ('SegDataPreProcessor', 'MultiBranchDataPreprocessor'):
            raise ValueError(
                f'{self.name} has model.data_preprocessor.type={preprocessor.get("type")!r}. Set a '
                "SegDataPreProcessor with the network's mean and std."
            )
        heads = self.cfg.model.decode_head
        for head in heads if isinstance(heads, (list, tuple)) else [heads]:
            for key in ('out_channels', 'num_classes'):
                if head.get(key) == 1:
                    raise ValueError(
                        f'{self.name} has decode_head.{key}=1, but pseudo-labels need one channel per class. '
                        'Set num_classes=2 and out_channels=2 for an object and its background, and a loss '
                        'with use_sigmoid=False.'
                    )
        if self.recipe.name in ('cps', 'gps') and self.cfg.get('load_from'):
            raise ValueError(
                f'{self.name} has load_from={self.cfg.load_from!r}, but the two students of '
                f'{self.recipe.name.upper()} need different initial weights. Set the init_cfg of the backbone '
                'to pre-trained weights of the encoder instead, or use another method.'
            )
        if self.recipe.name == 'gps' and self.by_epoch:
            raise ValueError(
                f'{self.name} trains by epochs (max_epochs={self.cfg.train_cfg.max_epochs}), but the two '
                'stages of GPS have epochs of different lists. Set max_iters in an IterBasedTrainLoop, or use '
                'another method.'
            )

    # ------------------------------------------------------------------ the parts
    def say_method(self) -> None:
        model = self.cfg.model
        settings = self.semi_train_cfg()
        said = ', '.join(f'{key}={value}' for key, value in settings.items())
        self.say(
            'method',
            METHODS[self.recipe.name],
            f'settings of {self.recipe.source}' + (f': {said}' if said else ''),
        )
        heads = [model.decode_head, model.get('auxiliary_head') or []]
        heads = [h for part in heads for h in (part if isinstance(part, (list, tuple)) else [part])]
        parts = [model.get('backbone') or {}, model.get('neck'), *heads]
        self.say(
            'network',
            f'{model.type}: {", ".join(str(part.get("type")) for part in parts if part)}',
            'unchanged, with its losses',
        )
        weights = pretrained(self.cfg)
        tells = 'load_from, into every network' if self.cfg.get('load_from') else 'as before'
        self.say('weights', weights or 'none, from scratch', tells if weights else '')
        if weights is None and settings.get('tau', 0) > 0.6:
            advised = {'tau': 0.5, 'unlabeled_start_fraction': 0.33}
            if settings.get('unlabeled_weight', 1) > 1:
                advised['unlabeled_weight'] = 1.0
            self.say(
                'advice',
                f'semi_train_cfg={python(advised)}',
                'a network from scratch is less confident than a pre-trained one. Start with a lower threshold '
                'and with labeled images only',
            )

    def semi_train_cfg(self) -> dict:
        """Return the settings of the recipe that suit the network."""
        settings = dict(self.recipe.model.get('semi_train_cfg') or {})
        head = self.cfg.model.decode_head
        # With two or three classes, rank 3 does not exist.
        if 'low_rank' in settings and isinstance(head, dict) and head.get('num_classes', 0) > 3:
            del settings['low_rank']
        if self.recipe.name == 'unimatch_v2' and pretrained(self.cfg) is None:
            # Instead of the logit adjustment, which was measured from scratch with iMAS only.
            settings.pop('adjust_logits', None)
            settings['align_distribution'] = True
        return settings

    def write_header(self) -> None:
        self.lines += [
            f'# {METHODS[self.recipe.name]}, with the images of {self.unlabeled}, on the training of',
            f'# {self.name}.',
            '# Written by tools/make_config.py. All other settings are inherited.',
        ]
        self.set('_base_', _base(self.name, self.out))
        imports = (self.cfg.get('custom_imports') or {}).get('imports') or []
        imports = [imports] if isinstance(imports, str) else list(imports)
        if 'mmseg_semi' not in imports:
            imports.append('mmseg_semi')
        self.set('custom_imports', {'imports': imports, 'allow_failed_imports': False})

    def write_data(self) -> None:
        code, dataset = labeled_dataset(self.cfg)
        loader, pipeline = self.cfg.train_dataloader, self.pipeline
        number = f'{len(dataset.datasets)} data sets' if dataset.get('datasets') else ''
        self.say('labeled', number or str(dataset.type), 'unchanged: files, classes, pipeline')
        if code.count('.dataset') > 1:
            self.left.append('RepeatDataset (the sampler repeats the labeled images)')
        if loader.get('batch_sampler'):
            raise ValueError(
                f'{self.name} has a train_dataloader.batch_sampler, which does not support labeled and '
                'unlabeled images. Give a config with a sampler.'
            )
        if len({str(one.get('pipeline')) for one in dataset.get('datasets') or ()}) > 1:
            first = first_branch(dataset)[-1].get('type')
            self.say('geometry', f'of the first, {first}', 'the pipelines of the data sets differ')
        shared = [*map(self.filled, pipeline.shared), *self.padding()]
        comment = (
            'Geometry of the labeled images, for unlabeled images. Pad comes before color changes.'
        )
        self.set('shared', shared, comment)
        kinds = [str(t['type']) for t in shared]
        images = {'type': 'UnlabeledDataset', 'img_dir': Path(self.unlabeled).as_posix()}
        if self.suffixes:
            images['img_suffix'] = tuple(self.suffixes)
        if self.self_training:
            self.write_self_training(code, images)
            views = ', '.join(t['type'] for t in self.views)
            strong = f'strong augmentation of pseudo-labeled images: {views}'
        else:
            self.write_pairs(code, images)
            strong = f'strong view: {self.strong_view()}'
        self.say(
            'unlabeled',
            f'{self.num_unlabeled} images of {self.unlabeled}; {", ".join(kinds)}',
            f'the geometry of the labeled ones, then {strong}',
        )
        if self.views != self.recipe.views:
            self.say(
                'intensities',
                f'RandomIntensity with {", ".join(_OF_ANY_CHANNELS["operations"])}',
                f'the strong augmentation of {METHODS[self.recipe.name]} needs three channels, and the images '
                f'have {self.channels}',
            )
        if pipeline.unknown:
            self.say(
                'please check',
                ', '.join(pipeline.unknown),
                'unknown, so it is also applied to unlabeled images. Remove it from `shared` if it reads '
                'labels or changes colors',
            )
        if pipeline.labeled_only:
            self.left.append(f'{", ".join(pipeline.labeled_only)} (labeled images only)')
        if 'cat_max_ratio' in str([part.get('pipeline') for part in first_branch(dataset)]):
            self.left.append('cat_max_ratio of unlabeled crops (it counts labels)')
        size = 'the largest image of a batch' if self.size is None else '{}x{}'.format(*self.size)
        self.say('crop', f'{size} (height x width)', self.size_from)

    def padding(self) -> list[dict]:
        """Return ``Pad`` to the crop. The strong view changes colors before the preprocessor pads."""
        if self.size is None or any(t['type'] == 'Pad' for t in self.pipeline.shared):
            return []
        preprocessor = self.cfg.model.data_preprocessor
        value, mean = preprocessor.get('pad_val', 0), preprocessor.get('mean')
        color = value
        if mean is not None and len(mean) == 1:
            color = round(mean[0] + value * preprocessor.std[0])
        elif mean is not None:
            if len(mean) > _PAD_CHANNELS:
                return []
            pairs = zip(mean, preprocessor.std, strict=True)
            color = tuple(round(m + value * s) for m, s in pairs)
            if preprocessor.get('bgr_to_rgb') or preprocessor.get('rgb_to_bgr'):
                color = color[::-1]
        # Fill value of valid masks, in which 255 is padding, and of labels in self-training.
        void = preprocessor.get('seg_pad_val', 255) if self.self_training else 255
        pad_val = {'img': color, 'seg': void}
        return [{'type': 'Pad', 'size': self.size[::-1], 'pad_val': pad_val}]

    def filled(self, transform: dict) -> dict:
        """Return a transform whose filled pixels are 255 in valid masks, for any void value of the labels."""
        if self.self_training:
            return transform
        changed = dict(transform)
        if 'transforms' in changed:  # a list, or one list for each choice of RandomChoice
            changed['transforms'] = [
                [self.filled(one) for one in part] if isinstance(part, list) else self.filled(part)
                for part in changed['transforms']
            ]
        if 'seg_pad_val' in changed:
            changed['seg_pad_val'] = 255
        if isinstance(changed.get('pad_val'), dict) and 'seg' in changed['pad_val']:
            changed['pad_val'] = {**changed['pad_val'], 'seg': 255}
        return changed

    def without_colors(self) -> list[dict]:
        """Return the views of the recipe for images that do not have three channels."""
        first, *others = self.recipe.views
        if first['type'] != 'MultiBranch':
            return _of_any_channels(self.recipe.views)
        branches = {k: _of_any_channels(v) for k, v in first.items() if k != 'type'}
        return [{'type': 'MultiBranch', **branches}, *others]

    def strong_view(self) -> str:
        view = self.views[0]
        if view['type'] != 'MultiBranch':
            return 'only CutMix'
        return ', '.join(t['type'] for t in view['strong'] if t != PACK)

    def write_pairs(self, code: str, images: dict) -> None:
        """Write the loader of a method with labeled and unlabeled images in each batch."""
        before = self.cfg.train_dataloader.batch_size
        labeled, unlabeled = self.batch or (before, before)
        views = self.views
        if views[0]['type'] == 'MultiBranch':
            strong = views[0]['strong']
            self.set('strong', strong)
            branches = {k: Code('strong') if v == strong else v for k, v in views[0].items()}
            views = [branches]
        pipeline = [*self.pipeline.load, {'type': 'AddValidMask'}, Code('*shared'), *views]
        sampler = {'labeled': labeled, 'unlabeled': unlabeled, 'endless': not self.by_epoch}
        changes = {
            'batch_size': labeled + unlabeled,
            'sampler': {'_delete_': True, 'type': 'LabeledUnlabeledSampler', **sampler},
            'collate_fn': {'_delete_': True, 'type': 'collate_branches'},
            'dataset': {
                '_delete_': True,
                'type': 'LabeledUnlabeledDataset',
                'labeled': Code(code),
                'unlabeled': {**images, 'pipeline': pipeline},
            },
        }
        if not self.cfg.train_dataloader.get('collate_fn'):
            changes['collate_fn'].pop('_delete_')
        self.set('train_dataloader', changes, 'batch_size counts labeled and unlabeled images.')
        as_before = 'as before' if labeled == before else f'before: {before}'
        self.say(
            'batch',
            f'{labeled} labeled + {unlabeled} unlabeled images per GPU',
            f'labeled ones {as_before}; --batch-size LABELED UNLABELED sets others, for less memory',
        )

    def write_self_training(self, code: str, images: dict) -> None:
        """Write the loader of ST and ST++ with labeled and pseudo-labeled images in one list."""
        if self.batch is not None:
            raise ValueError(
                f'--batch-size sets labeled and unlabeled images, but {METHODS[self.recipe.name]} samples both '
                'from one list. Remove it; train_dataloader.batch_size is the number of images.'
            )
        pipeline = [
            *self.pipeline.load,
            {'type': 'LoadAnnotations'},
            Code('*shared'),
            *self.views,
            {'type': 'PackSegInputs'},
        ]
        changes = {
            'sampler': {
                '_delete_': True,
                'type': 'ShuffledSampler',
                'endless': not self.by_epoch,
            },
            'dataset': {
                '_delete_': True,
                'type': 'SelfTrainingDataset',
                'labeled': Code(code),
                'pseudo_labeled': {
                    'type': 'PseudoLabeledDataset',
                    'images': images,
                    'pipeline': pipeline,
                },
            },
        }
        if self.by_epoch:
            changes['drop_last'] = True
        self.set('train_dataloader', changes, 'The stages name the pseudo-labels.')
        self.say(
            'batch',
            f'{self.cfg.train_dataloader.batch_size} images per GPU',
            'as before; labeled and pseudo-labeled ones are shuffled together',
        )

    def write_model(self) -> None:
        model, recipe = self.cfg.model, self.recipe.model
        preprocessor = {'type': 'MultiBranchDataPreprocessor'}
        if self.size is not None and not model.data_preprocessor.get('size'):
            preprocessor['size'] = self.size
        if self.size is not None and model.data_preprocessor.get('size_divisor'):
            preprocessor['size_divisor'] = None
        if model.data_preprocessor.get('batch_augments'):
            preprocessor['batch_augments'] = None
            self.left.append('data_preprocessor.batch_augments (the method mixes images)')
        segmentor = Code('_base_.model')
        head = model.decode_head
        if self.recipe.no_dropout and isinstance(head, dict) and head.get('dropout_ratio', 0.1):
            without = Extended('_base_.model.decode_head', {'dropout_ratio': 0})
            segmentor = Extended('_base_.model', {'decode_head': without})
            self.say('dropout', 'decode_head.dropout_ratio=0', 'the network labels in train mode')
        settings = self.semi_train_cfg()
        if settings.get('align_distribution'):
            self.say(
                'class shares',
                'align_distribution=True',
                'a network from scratch lets one class take over the pseudo-labels more easily',
            )
        elif settings.get('adjust_logits'):
            self.say(
                'class shares',
                'adjust_logits=True',
                'the network does not learn that rare classes have few pseudo-labels',
            )
        entries = {
            '_delete_': True,
            'type': recipe['type'],
            'data_preprocessor': Extended('_base_.model.data_preprocessor', preprocessor),
            'segmentor': segmentor,
            'semi_train_cfg': settings,
            'semi_test_cfg': recipe['semi_test_cfg'],
        }
        self.set('model', {key: value for key, value in entries.items() if value != {}})

    def write_training(self) -> None:
        """Write optimizer, learning rates and loops."""
        cfg, wrapper = self.cfg, self.cfg.optim_wrapper
        if not self.self_training:
            constructor = {'constructor': 'NetworkOptimWrapperConstructor'}
            given = wrapper.get('constructor')
            if given not in (None, 'DefaultOptimWrapperConstructor', constructor['constructor']):
                constructor['network_constructor'] = given
            comment = 'Apply the optimizer settings of the one network to all trained networks.'
            self.set('optim_wrapper', constructor, comment)
        optimizer = wrapper.get('optimizer') or {}
        schedule = cfg.get('param_scheduler') or []
        schedule = [schedule] if isinstance(schedule, dict) else schedule
        parts = [str(part.get('type')) for part in schedule]
        before = cfg.train_dataloader.batch_size
        labeled = (self.batch or (before,))[0]
        why = 'unchanged, since the labeled images of a step are'
        if labeled != before:
            why = (
                f'unchanged, though it was chosen for {before} labeled images per GPU: '
                'auto_scale_lr.enable=True scales it'
            )
        if wrapper.get('accumulative_counts', 1) > 1:
            why += (
                f'. The schedulers count optimizer steps: the training has {self.num_steps():,}, since '
                f'accumulative_counts={wrapper.accumulative_counts}'
            )
        self.say(
            'learning rate',
            f'{wrapper.get("type", "OptimWrapper")}, {optimizer.get("type")}, lr={optimizer.get("lr")}; '
            f'{" then ".join(parts) or "constant"}',
            why,
        )
        if self.recipe.name == 'gps' and schedule:
            teacher = [{'type': 'FinalPolyLR', 'power': 0.9, 'by_epoch': False}]
            self.set(
                'param_scheduler',
                {'_delete_': True, 'students': Code('_base_.param_scheduler'), 'teacher': teacher},
                'The teacher has the constant last learning rate of a poly decay.',
            )
        self.write_length()
        scale = cfg.get('auto_scale_lr') or {}
        if scale.get('base_batch_size') and not self.self_training:
            images = sum(self.batch or (before, before))
            base = scale.base_batch_size * images // labeled
            comment = 'The base counts labeled and unlabeled images.'
            self.set('auto_scale_lr', {'base_batch_size': base}, comment)

    def write_length(self) -> None:
        train = dict(self.cfg.train_cfg)
        kind = _kind(train) or ('EpochBasedTrainLoop' if self.by_epoch else 'IterBasedTrainLoop')
        if 'by_epoch' in train:  # MMEngine's format without a type
            del train['by_epoch']
            self.set('train_cfg', {'_delete_': True, **train, 'type': _LOOPS.get(kind, kind)})
        elif kind in _LOOPS:
            self.set('train_cfg', {'type': _LOOPS[kind]})
        stages = self.recipe.runtime.get('stages', {}).values()
        trainings = sum(stage['type'] in ('TrainStage', 'TeacherStage') for stage in stages)
        trainings += self.recipe.name == 'gps'
        each = f' for each of {trainings} trainings' if trainings else ''
        if not self.by_epoch:
            self.say('length', f'{train.get("max_iters")} iterations{each}', 'as before')
            return
        passes = 'its own list' if self.self_training else 'the unlabeled images'
        # The list of a self-training is not complete before its first stage.
        steps = (
            ''
            if self.self_training
            else f', so the training has {self.num_steps():,} optimizer steps'
        )
        self.say(
            'length',
            f'{train["max_epochs"]} epochs{each}',
            f'an epoch is one pass over {passes} here{steps}. Set train_cfg.max_epochs for another length',
        )
        self.say_ends()

    def say_ends(self) -> None:
        """Name schedulers that do not end with the training, whose epochs have another length than before."""
        schedule = self.cfg.get('param_scheduler') or []
        schedule = [schedule] if isinstance(schedule, dict) else schedule
        ends = [part.end for part in schedule if not part.get('by_epoch', True) and 'end' in part]
        if not self.self_training and ends and max(ends) != self.num_steps():
            self.say(
                'please check',
                f'the last scheduler ends at step {max(ends):,}, and the training at {self.num_steps():,}',
                'set the end of param_scheduler, or max_epochs',
            )

    def write_runtime(self) -> None:
        """Write evaluation, hooks and stages."""
        cfg, runtime = self.cfg, dict(self.recipe.runtime)
        evaluators = cfg.get('val_evaluator') or []
        evaluators = [evaluators] if isinstance(evaluators, dict) else evaluators
        said = [f'{e.get("type")} {e.get("iou_metrics", "")}'.strip() for e in evaluators]
        predictor = ''
        if not self.self_training:
            predictor = self.recipe.model['semi_test_cfg']['predict_on']
            for stage in ('val', 'test'):
                loop = cfg.get(f'{stage}_cfg')
                if loop and _kind(loop) in (None, f'{stage.title()}Loop'):
                    self.set(f'{stage}_cfg', {'type': f'TeacherStudent{stage.title()}Loop'})
        why = f'for each network; {predictor} predicts' if predictor else 'unchanged'
        self.say('evaluation', '; '.join(said) or 'none', why if said else '')
        self.write_hooks(self.method_hooks(runtime.pop('custom_hooks')), predictor)
        parallel = cfg.get('model_wrapper_cfg') or cfg
        unused = bool(parallel.get('find_unused_parameters', False))
        wrapper = {'type': 'SemiDistributedDataParallel', 'find_unused_parameters': unused}
        if cfg.get('model_wrapper_cfg'):
            wrapper = {'_delete_': True, **wrapper}
        self.set('model_wrapper_cfg', wrapper)
        if (cfg.get('randomness') or {}).get('seed') is None:
            self.set('randomness', {'seed': 0})
            self.say('seed', '0', 'so that --resume continues with the same images')
        own = str(Path('work_dirs') / Path(cfg.filename).stem)
        if cfg.get('work_dir') not in (None, own):
            self.set('work_dir', str(Path('work_dirs') / self.out.stem))
            self.left.append(f'work_dir={cfg.work_dir} (two trainings would share it)')
        if 'log_processor' in runtime:
            given = {'by_epoch', *(cfg.get('log_processor') or {})}
            log = runtime['log_processor'].items()
            runtime['log_processor'] = {key: value for key, value in log if key not in given}
        for key, value in runtime.items():
            self.set(key, value)

    def method_hooks(self, hooks: list[dict]) -> list[dict]:
        """Return the hooks of the recipe. In a short training, the teacher averages over fewer steps."""
        steps, adapted = self.num_steps(), []
        for hook in hooks:
            if hook['type'] == 'MeanTeacherHook' and averages_too_long(hook['decay'], steps):
                decay = short_decay(steps)
                self.say(
                    'teacher',
                    f'decay={decay}',
                    f'a moving average over fewer steps: decay={hook["decay"]} is for longer trainings',
                )
                hook = {**hook, 'decay': decay}
            adapted.append(hook)
        return adapted

    def num_steps(self) -> int:
        """Return the optimizer steps of the training on one GPU."""
        accumulated = self.cfg.optim_wrapper.get('accumulative_counts', 1)
        if self.by_epoch:
            unlabeled = self.batch[1] if self.batch else self.cfg.train_dataloader.batch_size
            # An epoch drops its last incomplete batch, and then its last incomplete step.
            batches = max(1, self.num_unlabeled // unlabeled)
            return self.cfg.train_cfg.max_epochs * max(1, batches // accumulated)
        return count_steps(self.cfg.train_cfg.max_iters, accumulated)

    def write_hooks(self, added: list[dict], predictor: str) -> None:
        cfg = self.cfg
        given = cfg.get('default_hooks') or {}
        hooks = {'param_scheduler': {'type': 'StepSchedulerHook'}}
        checkpoint = given.get('checkpoint')
        if checkpoint is None:
            every = cfg.train_cfg.get('val_interval', 1)
            hooks['checkpoint'] = {
                'type': 'AtomicCheckpointHook',
                'by_epoch': self.by_epoch,
                'interval': every,
            }
        elif _kind(checkpoint) in (None, 'CheckpointHook'):
            hooks['checkpoint'] = {'type': 'AtomicCheckpointHook'}
        best = (checkpoint or {}).get('save_best')
        if best and predictor:
            named = _named(best, predictor)
            if named != best:
                hooks.setdefault('checkpoint', {})['save_best'] = named
                self.say('best', f'save_best={named!r}', f'{best!r} of the network that predicts')
        self.set('default_hooks', hooks)
        kept, changed = [], False
        for hook in cfg.get('custom_hooks') or ():
            hook = dict(hook)
            if _kind(hook) == 'EMAHook' and predictor:
                changed = True
                self.left.append('EMAHook (it would average all networks of the method)')
                continue
            if _kind(hook) == 'EarlyStoppingHook' and predictor:
                changed = True
                hook['monitor'] = _named(hook['monitor'], predictor)
            kept.append(hook)
        added = [hook for hook in added if hook['type'] not in [_kind(one) for one in kept]]
        if kept and not changed:
            kept = [Code('*_base_.custom_hooks')]
        self.set('custom_hooks', [*kept, *added])


def _kind(part: dict) -> str | None:
    """Return the type in a part of a config without the scope, as in ``mmengine.EMAHook``, or None."""
    return part.get('type') and str(part['type']).rpartition('.')[2]


def _of_any_channels(transforms: list[dict]) -> list[dict]:
    kept = [t for t in transforms if t['type'] not in _OF_COLORS]
    return kept if len(kept) == len(transforms) else [_OF_ANY_CHANNELS, *kept]


def _named(metric, network: str):
    """Add the name of the network to a metric, or to several metrics."""
    if isinstance(metric, (list, tuple)):
        return [_named(one, network) for one in metric]
    return metric if metric == 'auto' or '/' in metric else f'{network}/{metric}'


def _base(name: str, out: Path) -> str | Code:
    """Return the reference to the inherited config in a config at ``out``."""
    if '::' in name:
        return Code(f"__import__('mmseg_semi').bases({name!r})")
    path = Path(os.path.relpath(Path(name).resolve(), out.parent.resolve())).as_posix()
    return path if path.startswith('.') else f'./{path}'
