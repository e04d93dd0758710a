"""The frame of all methods: their settings, their networks and the losses of a batch.

A method wraps the ``model`` of any MMSegmentation config as ``segmentor``. It trains on batches with named
branches (``labeled``, ``weak``, ``strong``) and predicts, exports and loads plain checkpoints like the network
that it wraps.
"""

from __future__ import annotations

import copy
import logging

import torch
from mmengine.logging import print_log
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...functional.pseudo_label import confident_ratio, label_entropy
from ..batch import Batch, UnlabeledImages
from ..cutmix import AdaptiveCutMix, CutMix, NoCutMix, ThreeBoxCutMix
from ..settings import MethodSettings, build_part, setting
from ..speed import compile_networks, use_channels_last
from .loading import CheckpointLoading
from .networks import NetworkOutput, NetworkPasses, check_network, dropout_rates, head_losses
from .steps import TrainingSteps
from .stock import StockSegmentor

#: What :class:`~mmseg_semi.engine.StartupCheckHook` says before the first iteration where it can.
SINGLE_IMAGE = '1 image on a process leaves batch normalization one value per channel.'
SINGLE_IMAGE_REMEDY = (
    'Set train_dataloader.sampler.labeled and unlabeled to at least 2 (unlabeled to 4 with pairs), and '
    'batch_size to their sum, or use SyncBN on several processes.'
)


class PredictionSettings(MethodSettings):
    """``semi_test_cfg``."""

    predict_on: str | None = setting(
        None, 'Network that predicts; None is the default of the method.'
    )


class SemiSegmentor(TrainingSteps, NetworkPasses, CheckpointLoading, StockSegmentor):
    """Base of the semi-supervised methods.

    A method declares its settings in a class ``Settings``, names its networks and implements :meth:`semi_loss`.

    Args:
        segmentor (dict): Config of the network, the ``model`` of any MMSegmentation config whose decode
            head returns one map of logits with ``num_classes`` channels.
        data_preprocessor (dict, optional): Config of a
            :class:`~mmseg_semi.models.MultiBranchDataPreprocessor`. Default: the segmentor's own, with its
            type switched.
        semi_train_cfg (dict, optional): Settings of the method; ``tools/settings.py METHOD`` prints them.
        semi_test_cfg (dict, optional): ``dict(predict_on=NAME)``: the network that predicts.
        init_cfg (dict, optional): Initialization, after the networks' own.
        pretrained, train_cfg: None, to which MMSegmentation's tools set them in any model's config.

    Raises:
        ValueError: The head cannot be trained on joint batches, or a setting is unknown or out of range.
    """

    class Settings(MethodSettings):
        unlabeled_start: int = setting(
            0, 'Optimizer steps of labeled training before the unlabeled images enter.', low=0
        )
        unlabeled_start_epochs: int = setting(
            0, 'The same in passes over the unlabeled images.', low=0
        )
        unlabeled_start_fraction: float = setting(
            0.0, 'The same as a fraction of the optimizer steps of the training.', low=0, below=1
        )
        labeled_weight: float = setting(1.0, 'Factor of the loss of labeled images.', low=0)
        ignore_padding: bool = setting(
            True,
            'Padding of unlabeled images is not learned from.',
            reading='padding not learned from',
        )
        channels_last: bool = setting(
            False, 'Convolutions compute with channels last (NHWC); same results to rounding.'
        )
        compile: bool = setting(
            False,
            'Training passes of encoders, necks and heads run through torch.compile; same results to rounding.',
        )

        def check(self) -> None:
            super().check()
            self.refuse_several(
                'unlabeled_start', 'unlabeled_start_epochs', 'unlabeled_start_fraction'
            )

    #: The settings of this model.
    cfg: Settings
    #: Names of the submodules that are networks, one that is optimized first.
    networks: tuple[str, ...] = ('student',)
    #: Those of them that are built from the config; a method makes the others itself.
    built_networks: tuple[str, ...] = ('student',)
    #: Networks that are updated together, by the name of the update and of its optimizer wrapper.
    optimized: dict[str, tuple[str, ...]] = {'student': ('student',)}
    #: The method that computes the losses of each update.
    updates: dict[str, str] = {'student': 'semi_loss'}
    #: The network that predicts, unless ``semi_test_cfg`` names another.
    default_predictor: str = 'student'
    #: Hooks without which the method silently does nothing; StartupCheckHook insists on them.
    required_hooks: tuple[str, ...] = ()
    #: Networks that are in train mode while they label images.
    labeling_in_train_mode: tuple[str, ...] = ()
    #: Branches of unlabeled images that a batch must bring.
    unlabeled_branches: tuple[str, ...] = ()
    #: Unlabeled images that a batch brings for each that it learns: the streams of its sampler.
    unlabeled_batches: int = 1
    #: Prefixes of weights of a network that it needs for training alone: no plain checkpoint has them.
    training_only: tuple[str, ...] = ()
    #: Modules that all networks have in common: where a network has it, and where a checkpoint has it once.
    shared_modules: dict[str, str] = {}
    #: Optimizer steps of a pass over the unlabeled images; a training loop sets it.
    epoch_steps: int | None = None
    #: Whether ``cutmix`` may adapt to the hardness of images.
    measures_hardness: bool = False

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if list(cls.updates) != list(cls.optimized):
            raise TypeError(
                f'{cls.__name__} has updates={list(cls.updates)} and optimized={list(cls.optimized)}. Give '
                'both the same names in the same order.'
            )

    def __init__(
        self,
        segmentor: dict,
        data_preprocessor: dict | None = None,
        semi_train_cfg: dict | None = None,
        semi_test_cfg: dict | None = None,
        init_cfg: dict | None = None,
        pretrained: None = None,
        train_cfg: None = None,
    ) -> None:
        for key, value in {'pretrained': pretrained, 'train_cfg': train_cfg}.items():
            if value:
                raise ValueError(
                    f'model.{key}={value!r} is of the network. Set model.segmentor.{key}, or leave it out.'
                )
        segmentor = copy.deepcopy(segmentor)
        # One preprocessor for all networks; the one inside would never be called.
        inner = segmentor.pop('data_preprocessor', None)
        if data_preprocessor is None:
            if inner is None:
                raise ValueError(
                    f'{type(self).__name__} has no data_preprocessor. Set it, or the one of `segmentor`.'
                )
            data_preprocessor = dict(inner, type='MultiBranchDataPreprocessor')
        # Built here, since the base class only knows MMEngine's registry where no scope is set.
        super().__init__(data_preprocessor=MODELS.build(data_preprocessor), init_cfg=init_cfg)
        self.cfg = self.Settings(semi_train_cfg)
        self.check_segmentor(segmentor)
        config = self.network_config(segmentor, self.cfg)
        for name in self.built_networks:
            # Built, not copied: each draws its own weights.
            network = MODELS.build(copy.deepcopy(config))
            check_network(network)
            self.add_training_modules(network)
            self.add_module(name, network)
        named = PredictionSettings(semi_test_cfg, 'semi_test_cfg').predict_on
        self.semi_test_cfg = {'predict_on': self.default_predictor if named is None else named}
        self.check_network_name(self.semi_test_cfg['predict_on'])
        self.cutmix = self.build_cutmix()
        if self.cfg.channels_last:
            # DistributedDataParallel, which is built next, notes down how weights lie in memory.
            use_channels_last(self)

    def init_weights(self) -> None:
        """Initialize the networks, then apply ``compile``.

        Raises:
            ValueError: ``compile`` is set and torch.compile does not work here.
        """
        if self.cfg.channels_last:
            # Weights are drawn in the order in which they lie in memory.
            self.to(memory_format=torch.contiguous_format)
        super().init_weights()
        if self.cfg.channels_last:
            use_channels_last(self)
        if self.cfg.compile:
            compile_networks(getattr(self, name) for name in self.networks)

    def check_segmentor(self, segmentor: dict) -> None:
        """Raise ValueError if the config of the network contradicts the settings."""

    @classmethod
    def network_config(cls, segmentor: dict, cfg: Settings) -> dict:
        """The config of the network that predicts, without what only training needs; exports have it too."""
        return segmentor

    def add_training_modules(self, network: nn.Module) -> None:
        """Extend the network, before copies of it are made, by modules named in :attr:`training_only`."""

    def build_cutmix(self) -> CutMix | ThreeBoxCutMix | NoCutMix:
        """What the setting ``cutmix`` says; nothing is mixed where the method has none, or it is None."""
        given = getattr(self.cfg, 'cutmix', None)
        if given is None:
            return NoCutMix()
        if isinstance(given, str):
            return ThreeBoxCutMix(pairs=given == 'pair')
        mixer = build_part(given, AdaptiveCutMix, 'cutmix')
        if mixer.adaptive and not self.measures_hardness:
            raise ValueError(
                'semi_train_cfg.cutmix.adaptive=True needs the hardness of images, which '
                f'{type(self).__name__} does not measure. Set adaptive=False with a prob.'
            )
        return mixer

    def optimized_alike(self) -> dict[nn.Parameter, nn.Parameter]:
        """Map optimized parameters to parameters of other networks that learn at the same rates."""
        return {}

    def lr_scale(self, wrapper: str) -> float:
        """Factor of the learning rates of the networks in ``optimized[wrapper]``."""
        return 1.0

    def check_start(self) -> None:
        """After checkpoints are loaded, raise ValueError if training would be useless."""
        self._warn_of_dropout()

    def fewest_images(self, labeled: int, unlabeled: int) -> dict[str, int]:
        """The fewest images that a network in train mode sees in one forward, by network.

        Batch normalization of maps of one pixel, as behind a global pooling, needs two. Networks that are
        always in eval mode are left out.

        Args:
            labeled (int): Labeled images of a process in an iteration.
            unlabeled (int): Unlabeled images, of each view.
        """
        fewest = self.images_of_a_forward(labeled, unlabeled)
        if self.cfg.unlabeled_start or self.cfg.unlabeled_start_fraction:
            fewest = min(fewest, labeled)
        return {name: fewest for names in self.optimized.values() for name in names}

    def images_of_a_forward(self, labeled: int, unlabeled: int) -> int:
        """As :meth:`fewest_images`, of the optimized networks once the unlabeled images have entered."""
        joint = getattr(self.cfg, 'joint_forward', True)
        return labeled + unlabeled if joint else min(labeled, unlabeled)

    def _warn_of_dropout(self) -> None:
        names = self.labeling_in_train_mode
        # All networks are built alike. What the method has added to them drops as its own settings say.
        rates = dropout_rates(getattr(self, names[0])) if names else {}
        rates = {key: rate for key, rate in rates.items() if not key.startswith(self.training_only)}
        if not rates:
            return
        name, rate = next(iter(rates.items()))
        more = f', and {len(rates) - 1} more drop theirs' if len(rates) > 1 else ''
        remedy = 'Set dropout_ratio=0, and drop_path_rate=0 in encoders that have it'
        if hasattr(self.cfg, 'label_mode'):
            remedy += ", or semi_train_cfg.label_mode='eval'"
        print_log(
            f'Networks label in train mode ({", ".join(names)}), in which {name} drops {rate:g} of its input'
            f'{more}: pseudo-labels change at random. {remedy}.',
            logger='current',
            level=logging.WARNING,
        )

    # ------------------------------------------------------------------ losses
    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss terms and the diagnostics of one batch: the method's algorithm.

        Every key that contains ``loss`` is optimized; no diagnostic's name may contain it.
        """
        raise NotImplementedError(f'{type(self).__name__} has to implement semi_loss.')

    def labeled_only_loss(self, batch: Batch, update: str) -> dict[str, Tensor]:
        """The losses of an update before ``unlabeled_start``."""
        network = getattr(self, self.optimized[update][0])
        output = self.forward_network(network, batch.labeled.images, len(batch.labeled))
        return self.labeled_loss(output, batch)

    def labeled_loss(
        self, output: NetworkOutput, batch: Batch, network: nn.Module | None = None
    ) -> dict[str, Tensor]:
        """The weighted losses of the heads of a network, by default the student, on the labeled images."""
        network = self.student if network is None else network
        losses = head_losses(network, output, batch.labeled.samples)
        return {key: self.cfg.labeled_weight * loss for key, loss in losses.items()}

    def label_log(
        self, label: Tensor, view: UnlabeledImages, confidence: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Scalars for the log on pseudo-labels.

        Args:
            label (Tensor): int64 (N, H, W), of a view before anything is mixed.
            view (UnlabeledImages): The view.
            confidence (Tensor, optional): (N, H, W), of which the share of at least ``tau`` is logged.
        """
        scalars = {}
        if confidence is not None:
            ratio = confident_ratio(confidence, self.cfg.tau, view.valid)
            scalars['confident_ratio'] = ratio.mean()
        return {
            **scalars,
            'pseudo_label_entropy': label_entropy(label, self.num_classes, view.real),
        }

    @property
    def unlabeled_start(self) -> int:
        """The optimizer step at which the unlabeled images enter.

        Raises:
            ValueError: It depends on the length of the training, which no training loop has told.
        """
        fraction = self.cfg.unlabeled_start_fraction
        if fraction:
            if self.clock.num_steps is None:
                raise ValueError(
                    f'semi_train_cfg.unlabeled_start_fraction={fraction} needs the length of the training. '
                    'Train with a loop of this package (WholeStepIterTrainLoop), or set unlabeled_start.'
                )
            return round(fraction * self.clock.num_steps)
        return self.steps_of(self.cfg.unlabeled_start, self.cfg.unlabeled_start_epochs)

    @property
    def started(self) -> bool:
        """Whether the unlabeled images have entered; a number of the host, the same on all ranks."""
        return self.clock.step >= self.unlabeled_start

    def steps_of(self, steps: int, epochs: int) -> int:
        """A length in optimizer steps, of which a setting says either these or epochs.

        Raises:
            ValueError: It is in epochs, and no training loop has told how long one is.
        """
        if not epochs:
            return steps
        if self.epoch_steps is None:
            raise ValueError(
                f'{type(self).__name__} has a setting in epochs and does not know their length. Train with '
                'UnlabeledEpochTrainLoop and LabeledUnlabeledSampler, or use the setting in steps.'
            )
        return epochs * self.epoch_steps

    def batch_of(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> Batch:
        """Sort what the preprocessor returns into the branches that the method needs."""
        return Batch.of(
            inputs,
            data_samples,
            self.unlabeled_branches,
            ignore_padding=self.cfg.ignore_padding,
            ignore_index=self.ignore_index,
            method=type(self).__name__,
        )

    def update_loss(self, update: str, batch: Batch) -> dict[str, Tensor]:
        """The losses of one update."""
        try:
            if not self.started:
                return self.labeled_only_loss(batch, update)
            return getattr(self, self.updates[update])(batch)
        except ValueError as error:
            if 'more than 1 value per channel' not in str(error):
                raise
            raise ValueError(f'{SINGLE_IMAGE} {SINGLE_IMAGE_REMEDY}') from error

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """The losses of all updates on one batch, with no update between them.

        Args:
            inputs (dict[str, Tensor]): Normalized images (n, 3, H, W) by branch.
            data_samples (dict[str, list[SegDataSample]]): Labels, or valid masks, by branch.
        """
        batch, losses = self.batch_of(inputs, data_samples), {}
        for update in self.updates:
            losses.update(self.update_loss(update, batch))
        return losses

    def forward(self, inputs, data_samples: dict | list | None = None, mode: str = 'tensor'):
        """As MMSegmentation's; the name of an update as ``mode`` is its loss, of a :class:`Batch`."""
        if mode in self.updates:
            return self.update_loss(mode, inputs)
        return super().forward(inputs, data_samples, mode)
