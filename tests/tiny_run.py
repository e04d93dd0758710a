"""A complete training that takes a second, as a config for a Runner or as a file for the tools.

The images are ShapesDataset's, 32 x 32, drawn (`images=None`) or read from the files of
:func:`write_images`. All that makes resuming hard is in it: several passes over the unlabeled list, dropout,
CutMix, validations that do not coincide with saves.
"""

from __future__ import annotations

import copy
import uuid
from pathlib import Path
from unittest import mock

from mmengine.config import Config
from mmengine.runner import Runner
from tiny import tiny_segmentor

from mmseg_semi.datasets.shapes import CLASSES, PALETTE, write_shapes

RUNTIMES = Path(__file__).parents[1] / 'configs' / '_base_' / 'runtime'
SIZE = (32, 32)
NUM_LABELED, NUM_UNLABELED, NUM_VAL = 5, 9, 4
#: What each method needs beside the defaults: settings, and hooks.
METHODS = {
    'IMAS': ({'tau': 0.3, 'unlabeled_weight': 1.0}, []),
    'MeanTeacher': ({'unlabeled_start': 2, 'rampup_steps': 6}, []),
    'CutMixSeg': ({'tau': 0.3}, []),
    'FixMatch': ({'tau': 0.3, 'unlabeled_start': 2}, []),
    'ESL': (
        {
            'segmentation_head': {'channels': 8},
            'projector': {'channels': 8, 'out_channels': 8},
            'num_parts': 2,
            'queue_size': 3,
            'num_negatives': 8,
            'anchor_threshold': 0.3,
        },
        [{'type': 'PrototypeInitHook', 'max_pixels': 50}],
    ),
    'U2PL': (
        {
            'representation': {'channels': 8, 'out_channels': 8},
            'unlabeled_start': 2,
            'queue_size': 20,
            'background_queue_size': 30,
            'keys_per_step': 8,
            'num_anchors': 4,
            'num_negatives': 6,
        },
        [],
    ),
    'DeS4': (
        {'unlabeled_start': 2},
        [{'type': 'ClassCountHook'}, {'type': 'ClassDistributionHook', 'interval': 6}],
    ),
    'CorrMatch': (
        {'tau_start': 0.3, 'unlabeled_start': 3, 'channels': 8, 'num_regions': 8},
        [],
    ),
    'UniMatch': ({'tau': 0.3, 'unlabeled_start': 3}, []),
    'UniMatchV2': ({'tau': 0.3, 'unlabeled_start': 3, 'adjust_logits': True}, []),
    'PrevMatch': (
        {'tau': 0.3, 'guidance_tau': 0.3, 'unlabeled_start': 3, 'num_models': 3},
        [{'type': 'EarlierModelHook'}],
    ),
    'CPS': ({'cutmix': 'in_batch'}, []),
    'GPS': ({'cutmix': 'in_batch'}, [{'type': 'AdaptiveRampUpHook'}]),
}
#: Methods without an EMA teacher, and those of them that a hook of their own tells the time.
NO_AVERAGE = ('CorrMatch', 'CPS', 'FixMatch', 'GPS', 'PrevMatch', 'UniMatch')
OWN_HOOK = ('GPS',)
#: Methods that learn from two strong views.
TWO_VIEWS = ('PrevMatch', 'UniMatch', 'UniMatchV2')
#: Where the sets begin in the stream of synthetic images, and in the files.
STARTS = {'labeled': 0, 'unlabeled': NUM_LABELED, 'val': NUM_LABELED + NUM_UNLABELED}
NUMBERS = {'labeled': NUM_LABELED, 'unlabeled': NUM_UNLABELED, 'val': NUM_VAL}


def write_images(root: Path) -> Path:
    """Write the images of all sets with the masks of the labeled ones, and a list of ids per set."""
    for name, number in NUMBERS.items():
        start = STARTS[name]
        labeled = name != 'unlabeled'
        ids = write_shapes(root, number, image_size=SIZE, start=start, labeled=labeled)
        (root / f'{name}.txt').write_text('\n'.join(ids) + '\n')
    return root


def _dataset(name: str, images: Path | None, pipeline: list) -> dict:
    """Config of one set; its loading transforms are put in front of ``pipeline``."""
    labeled = name != 'unlabeled'
    if images is None:
        load = [{'type': 'LoadShapes'}]
        where = {'num_images': NUMBERS[name], 'image_size': SIZE, 'start': STARTS[name]}
        config = {'type': 'ShapesDataset', 'labeled': labeled, **where}
    else:
        load = [{'type': 'LoadImageFromFile'}]
        config = {'type': 'UnlabeledDataset', 'img_dir': 'img_dir', 'img_suffix': '.png'}
        if labeled:
            load.append({'type': 'LoadAnnotations'})
            config = {
                'type': 'BaseSegDataset',
                'metainfo': {'classes': list(CLASSES), 'palette': PALETTE},
                'data_prefix': {'img_path': 'img_dir', 'seg_map_path': 'ann_dir'},
                'img_suffix': '.png',
                'seg_map_suffix': '.png',
            }
        config.update(data_root=str(images), ann_file=f'{name}.txt')
    return {**config, 'pipeline': load + pipeline}


def _train_dataloader(
    method: str | None, images, workers: int, labeled: int, unlabeled: int
) -> dict:
    geometry = [
        {'type': 'RandomResize', 'scale': SIZE, 'ratio_range': (0.8, 1.3), 'keep_ratio': True},
        {'type': 'RandomCrop', 'crop_size': SIZE},
        {'type': 'RandomFlip', 'prob': 0.5},
    ]
    loader = {
        'num_workers': workers,
        'persistent_workers': workers > 0,
        'dataset': _dataset('labeled', images, [*geometry, {'type': 'PackSegInputs'}]),
        'collate_fn': {'type': 'collate_branches'},
    }
    if method is None:
        return {**loader, 'batch_size': labeled, 'sampler': {'type': 'InfiniteSampler'}}
    pack = {'type': 'PackUnlabeledInputs'}
    views = {
        'type': 'MultiBranch',
        'weak': [pack],
        'strong': [{'type': 'RandomIntensity'}, pack],
    }
    if method in TWO_VIEWS:
        views['strong2'] = [{'type': 'RandomColorJitter'}, pack]
    return {
        **loader,
        'batch_size': labeled + unlabeled,
        'sampler': {
            'type': 'LabeledUnlabeledSampler',
            'labeled': labeled,
            'unlabeled': unlabeled,
        },
        'dataset': {
            'type': 'LabeledUnlabeledDataset',
            'labeled': loader['dataset'],
            'unlabeled': _dataset(
                'unlabeled', images, [{'type': 'AddValidMask'}, *geometry, views]
            ),
        },
    }


def tiny_config(
    work_dir: Path,
    method: str | None = 'IMAS',
    *,
    images: Path | None = None,
    norm: str = 'BN',
    workers: int = 0,
    labeled: int = 2,
    unlabeled: int = 2,
    epochs: int | None = None,
    **changes,
) -> Config:
    """Return the config of a training of 14 iterations that saves every 5 and validates every 4.

    Args:
        work_dir (Path): Of the run.
        method (str, optional): Type of the segmentor; None trains the plain network on the labeled images.
        images (Path, optional): Folder of :func:`write_images`; None draws them while loading.
        norm (str): Of the network.
        workers (int): Of the training loader.
        labeled, unlabeled (int): Make-up of a batch of one process.
        epochs (int, optional): Train by epochs, and validate and save after each.
        **changes: Settings by their dotted keys, with ``__`` for each dot.
    """
    # Large weights in the classifier make the untrained network confident, in several classes.
    classifier = {'type': 'Normal', 'std': 2.0, 'override': {'name': 'conv_seg'}}
    network = tiny_segmentor(norm, num_classes=len(CLASSES), dropout_ratio=0.2, init_cfg=classifier)
    network['data_preprocessor']['size'] = SIZE
    settings, hooks = METHODS.get(method, ({}, []))
    model = {'type': method, 'segmentor': network, 'semi_train_cfg': settings}
    evaluation = {
        'batch_size': 2,
        'num_workers': 0,
        'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        'dataset': _dataset('val', images, [{'type': 'PackSegInputs'}]),
    }
    if images is not None:
        # mmseg's test pipelines load annotations last, so that they are not resized.
        evaluation['dataset']['pipeline'][1:] = [
            {'type': 'Resize', 'scale': SIZE},
            {'type': 'LoadAnnotations'},
            {'type': 'PackSegInputs'},
        ]
    train_cfg = {'type': 'WholeStepIterTrainLoop', 'max_iters': 14, 'val_interval': 4}
    if epochs:
        train_cfg = {'type': 'WholeStepEpochTrainLoop', 'max_epochs': epochs, 'val_interval': 1}
    by_epoch = epochs is not None
    loops = 'TeacherStudent{}Loop' if method else '{}Loop'
    config = Config(
        {
            'custom_imports': {'imports': ['mmseg_semi'], 'allow_failed_imports': False},
            'default_scope': 'mmseg',
            'env_cfg': {
                'mp_cfg': {'mp_start_method': 'fork', 'opencv_num_threads': 0},
                'dist_cfg': {'backend': 'gloo'},
            },
            'model': model if method else network,
            'model_wrapper_cfg': {'type': 'SemiDistributedDataParallel'},
            'train_dataloader': _train_dataloader(method, images, workers, labeled, unlabeled),
            'val_dataloader': evaluation,
            'test_dataloader': evaluation,
            'val_evaluator': {'type': 'IoUMetric', 'iou_metrics': ['mIoU']},
            'test_evaluator': {'type': 'IoUMetric', 'iou_metrics': ['mIoU']},
            'train_cfg': train_cfg,
            'val_cfg': {'type': loops.format('Val')},
            'test_cfg': {'type': loops.format('Test')},
            'optim_wrapper': {
                'type': 'OptimWrapper',
                'constructor': 'NetworkOptimWrapperConstructor',
                'optimizer': {'type': 'AdamW', 'lr': 0.005},
            },
            'param_scheduler': [
                {'type': 'NonzeroPolyLR', 'eta_min': 0, 'power': 0.9, 'end': 14, 'by_epoch': False}
            ],
            'default_hooks': {
                'timer': {'type': 'IterTimerHook'},
                'logger': {'type': 'LoggerHook', 'interval': 2, 'log_metric_by_epoch': by_epoch},
                'param_scheduler': {'type': 'StepSchedulerHook'},
                'checkpoint': {
                    'type': 'AtomicCheckpointHook',
                    'by_epoch': by_epoch,
                    'interval': 1 if by_epoch else 5,
                    'max_keep_ckpts': 2,
                },
                'sampler_seed': {'type': 'DistSamplerSeedHook'},
                'visualization': {'type': 'SegVisualizationHook'},
            },
            'custom_hooks': [
                {'type': 'StartupCheckHook'},
                {'type': 'ResumableRandomnessHook'},
                {'type': 'FiniteLossHook'},
            ],
            'visualizer': {
                'type': 'SegLocalVisualizer',
                'vis_backends': [{'type': 'LocalVisBackend'}],
                'name': 'visualizer',
            },
            'log_processor': {'by_epoch': by_epoch},
            'log_level': 'INFO',
            'randomness': {'seed': 3},
            'load_from': None,
            'resume': False,
            'work_dir': str(work_dir),
            'tta_model': {'type': 'SegTTAModel'},
            'tta_pipeline': [
                evaluation['dataset']['pipeline'][0],
                {
                    'type': 'TestTimeAug',
                    'transforms': [
                        [
                            {'type': 'RandomFlip', 'prob': 0.0},
                            {'type': 'RandomFlip', 'prob': 1.0},
                        ],
                        [] if images is None else [{'type': 'LoadAnnotations'}],
                        [{'type': 'PackSegInputs'}],
                    ],
                },
            ],
        },
        # Laying it out as pretty Python, for each checkpoint, takes longer than the training.
        format_python_code=False,
    )
    if method:
        teacher = {'type': 'MeanTeacherHook', 'decay': 0.9, 'copy_epochs': 1}
        if method not in (*OWN_HOOK, *NO_AVERAGE):
            config.custom_hooks.append(teacher)
        config.custom_hooks += hooks
        if method == 'GPS':
            teacher = [{'type': 'FinalPolyLR', 'by_epoch': False}]
            config.param_scheduler = {'students': config.param_scheduler, 'teacher': teacher}
        if by_epoch:
            config.train_dataloader.sampler.endless = False
    config.merge_from_dict({key.replace('__', '.'): value for key, value in changes.items()})
    return config


def build_runner(config: Config) -> Runner:
    """Build a Runner that shares no logger, visualizer or history with others of this process."""
    config = copy.deepcopy(config)
    config.experiment_name = config.visualizer.name = uuid.uuid4().hex
    # Asking the compilers for their versions takes longer than the training.
    with mock.patch('mmengine.runner.runner.collect_env', dict):
        return Runner.from_cfg(config)


def dump(config: Config, path: Path) -> Path:
    """Write the config as a file for the tools."""
    config.dump(str(path))
    return path


def tiny_stages_config(
    work_dir: Path, runtime: str = 'stpp', *, images: Path | None = None, **changes
) -> Config:
    """Return the config of ST, ST++ or ST++ with a third re-training, of 14 iterations per training.

    The stages are those of `configs/_base_/runtime/{runtime}_runtime.py`, with two scales, small batches and
    no workers.
    """
    stages = Config.fromfile(RUNTIMES / f'{runtime}_runtime.py').stages.to_dict()
    for stage in stages.values():
        if stage['type'] not in ('TrainStage', 'TeacherStage'):
            stage.update(num_workers=0, batch_size=3)
        if stage['type'] == 'LabelStage':
            stage['scales'] = [0.5, 1.0]
    config = tiny_config(work_dir, None, images=images)
    labeled = config.train_dataloader.dataset.to_dict()
    load, weak = labeled['pipeline'][:1], labeled['pipeline'][-4:-1]
    strong = [
        {'type': 'RandomColorJitter'},
        {'type': 'RandomGray'},
        {'type': 'RandomGaussianBlur'},
        {'type': 'RandomNoiseCutout'},
    ]
    unlabeled = _dataset('unlabeled', images, [])
    del unlabeled['pipeline']
    config.train_dataloader = {
        'batch_size': 4,
        'num_workers': 0,
        'sampler': {'type': 'ShuffledSampler', 'endless': True},
        'dataset': {
            'type': 'SelfTrainingDataset',
            'labeled': labeled,
            'pseudo_labeled': {
                'type': 'PseudoLabeledDataset',
                'images': unlabeled,
                'pipeline': [
                    *load,
                    {'type': 'LoadAnnotations'},
                    *weak,
                    *strong,
                    {'type': 'PackSegInputs'},
                ],
            },
        },
    }
    config.runner_type, config.stages = 'StagedRunner', stages
    # Merging takes `_delete_` out of what it is given.
    changes = copy.deepcopy(changes)
    config.merge_from_dict({key.replace('__', '.'): value for key, value in changes.items()})
    return config
