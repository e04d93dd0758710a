"""Base class of all methods: settings, networks and the losses of a batch.

A method wraps the ``model`` of any MMSegmentation config as ``segmentor``. It trains on batches with named
branches (``labeled``, ``weak``, ``strong``). It predicts, exports and loads plain checkpoints like the wrapped
network.
"""

from __future__ import annotations

import copy
import logging

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...functional.pseudo_label import confident_ratio, label_entropy
from ..batch import Batch, UnlabeledImages
from ..cutmix import AdaptiveCutMix, CutMix, NoCutMix, ThreeBoxCutMix
from ..data_preprocessor import check_preprocessor
from ..settings import MethodSettings, build_part, setting
from ..speed import compile_networks, use_channels_last
from .loading import CheckpointLoading
from .networks import (
    NetworkOutput,
    NetworkPasses,
    check_network,
    checkpointed_modules,
    dropout_rates,
    head_losses,
    require_gradients,
    trains_sigmoids,
)
from .steps import TrainingSteps
from .stock import StockSegmentor

#: Also the message of :class:`~mmseg_semi.engine.StartupCheckHook` before the first iteration.
SINGLE_IMAGE = '1 image on a process gives batch normalization only one value per channel.'
SINGLE_IMAGE_REMEDY = (
    'Set train_dataloader.sampler.labeled and unlabeled to at least 2 (unlabeled to 4 with pairs), and '
    'batch_size to their sum, or use SyncBN on several processes.'
)


class PredictionSettings(MethodSettings):
    """``semi_test_cfg``."""

    predict_on: str | None = setting(
        None, 'Network that predicts; None selects the default of the method.'
    )


class SemiSegmentor(TrainingSteps, NetworkPasses, CheckpointLoading, StockSegmentor):
    """Base of the semi-supervised methods.

    A method declares its settings in a class ``Settings``, lists its networks and implements :meth:`semi_loss`.

    Args:
        segmentor (dict): Config of the network: the ``model`` of any MMSegmentation config. Its decode head
            must return one map of logits with ``num_classes`` channels.
        data_preprocessor (dict, optional): Config of a
            :class:`~mmseg_semi.models.MultiBranchDataPreprocessor`. Default: the settings of the segmentor's
            own preprocessor.
        semi_train_cfg (dict, optional): Settings of the method; ``tools/settings.py METHOD`` prints them.
        semi_test_cfg (dict, optional): ``dict(predict_on=NAME)`` selects the network that predicts.
        init_cfg (dict, optional): Initialization, applied after that of the networks.
        pretrained, train_cfg: Must be None. MMSegmentation's tools set these keys in the config of any model.

    Raises:
        ValueError: The head cannot be trained on joint batches, or a setting is unknown or out of range.
    """

    class Settings(MethodSettings):
        unlabeled_start: int = setting(
            0, 'Optimizer steps on labeled images only, before the unlabeled loss starts.', low=0
        )
        unlabeled_start_epochs: int = setting(
            0, 'Same as unlabeled_start, in epochs over the unlabeled images.', low=0
        )
        unlabeled_start_fraction: float = setting(
            0.0, 'Same as unlabeled_start, as a fraction of the training.', low=0, below=1
        )
        unlabeled_end_fraction: float = setting(
            1.0,
            'Fraction of the training after which it uses labeled images only.',
            above=0,
            high=1,
        )
        labeled_weight: float = setting(1.0, 'Weight of the labeled loss.', low=0)
        ignore_padding: bool = setting(
            True,
            'Exclude the padding of unlabeled images from the loss.',
            reading='padding excluded from the loss',
        )
        channels_last: bool = setting(
            False,
            'Run convolutions in the channels-last (NHWC) memory format. Results agree up to rounding.',
        )
        compile: bool = setting(
            False,
            'Compile encoders, necks and heads with torch.compile in training. Results agree up to rounding.',
        )

        def check(self) -> None:
            super().check()
            self.refuse_several(
                'unlabeled_start', 'unlabeled_start_epochs', 'unlabeled_start_fraction'
            )

    #: Settings of this model.
    cfg: Settings
    #: Names of the submodules that are networks. The first one must be optimized.
    networks: tuple[str, ...] = ('student',)
    #: Networks that are built from the config. The method itself creates the others.
    built_networks: tuple[str, ...] = ('student',)
    #: Networks that are updated together, by update name. Its optimizer wrapper has the same name.
    optimized: dict[str, tuple[str, ...]] = {'student': ('student',)}
    #: The method that computes the losses of each update.
    updates: dict[str, str] = {'student': 'semi_loss'}
    #: The network that predicts, unless ``semi_test_cfg`` names another.
    default_predictor: str = 'student'
    #: Hooks that the method needs. StartupCheckHook raises an error if the config has none of them.
    required_hooks: tuple[str, ...] = ()
    #: Networks that are in train mode while they label images.
    labeling_in_train_mode: tuple[str, ...] = ()
    #: Branches of unlabeled images that a batch must have.
    unlabeled_branches: tuple[str, ...] = ()
    #: Unlabeled images in a batch per image that is trained on: the streams of the sampler.
    unlabeled_batches: int = 1
    #: Prefixes of weights that a network needs only in training. Plain checkpoints do not have them.
    training_only: tuple[str, ...] = ()
    #: Modules that all networks share: name inside a network = name under which a checkpoint stores it once.
    shared_modules: dict[str, str] = {}
    #: Optimizer steps per epoch over the unlabeled images; the training loop sets it.
    epoch_steps: int | None = None
    #: Whether ``cutmix`` may adapt to the hardness of images.
    measures_hardness: bool = False

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if list(cls.updates) != list(cls.optimized):
            raise TypeError(
                f'{cls.__name__} has updates={list(cls.updates)} and optimized={list(cls.optimized)}. Use '
                'the same names in the same order in both.'
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
                    f'model.{key}={value!r} is a setting of the network. Set model.segmentor.{key}, or '
                    'remove it.'
                )
        segmentor = copy.deepcopy(segmentor)
        # All networks share one preprocessor. One inside a network would never be called.
        inner = segmentor.pop('data_preprocessor', None)
        if data_preprocessor is None:
            if inner is None:
                raise ValueError(
                    f'{type(self).__name__} has no data_preprocessor. Set model.data_preprocessor or '
                    'model.segmentor.data_preprocessor.'
                )
            data_preprocessor = dict(inner, type='MultiBranchDataPreprocessor')
        # Built here, since the base class only searches MMEngine's registry if no scope is set.
        preprocessor = MODELS.build(data_preprocessor)
        check_preprocessor(preprocessor, data_preprocessor, inner or {})
        super().__init__(data_preprocessor=preprocessor, init_cfg=init_cfg)
        self.cfg = self.Settings(semi_train_cfg)
        self.check_segmentor(segmentor)
        config = self.network_config(segmentor, self.cfg)
        for name in self.built_networks:
            # Built, not copied, so that each network has its own random weights.
            network = MODELS.build(copy.deepcopy(config))
            check_network(network)
            self.add_training_modules(network)
            self.add_module(name, network)
        named = PredictionSettings(semi_test_cfg, 'semi_test_cfg').predict_on
        self.semi_test_cfg = {'predict_on': self.default_predictor if named is None else named}
        self.check_network_name(self.semi_test_cfg['predict_on'])
        self.cutmix = self.build_cutmix()
        if self.cfg.channels_last:
            # DistributedDataParallel, which is built next, records the memory format of the weights.
            use_channels_last(self)

    def init_weights(self) -> None:
        """Initialize the networks, then apply ``compile``.

        Raises:
            ValueError: ``compile`` is set and torch.compile does not work here.
        """
        if self.cfg.channels_last:
            # Random initialization fills weights in the order of their memory format.
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
        """Return the config of the network that predicts, without modules for training only.

        Exports contain this config.
        """
        return segmentor

    def add_training_modules(self, network: nn.Module) -> None:
        """Add the modules of :attr:`training_only` to the network, before it is copied."""

    def build_cutmix(self) -> CutMix | ThreeBoxCutMix | NoCutMix:
        """Build the setting ``cutmix``; None, or no such setting, mixes nothing."""
        given = getattr(self.cfg, 'cutmix', None)
        if given is None:
            return NoCutMix()
        if isinstance(given, str):
            return ThreeBoxCutMix(pairs=given == 'pair')
        mixer = build_part(given, AdaptiveCutMix, 'cutmix')
        if mixer.adaptive and not self.measures_hardness:
            raise ValueError(
                'semi_train_cfg.cutmix.adaptive=True needs the hardness of images, which '
                f'{type(self).__name__} does not measure. Set adaptive=False and a prob.'
            )
        return mixer

    def optimized_alike(self) -> dict[nn.Parameter, nn.Parameter]:
        """Map optimized parameters to parameters of other networks with the same learning rates."""
        return {}

    def lr_scale(self, wrapper: str) -> float:
        """Return the factor of the learning rates of the networks in ``optimized[wrapper]``."""
        return 1.0

    @property
    def several_forwards(self) -> bool:
        """Whether a network has several forward passes with gradients in an iteration."""
        return not getattr(self.cfg, 'joint_forward', True)

    def check_start(self) -> None:
        """Raise ValueError if training would be useless. Called after checkpoints are loaded."""
        end = self.unlabeled_end
        if end is not None and self.unlabeled_start >= end:
            raise ValueError(
                f'semi_train_cfg.unlabeled_end_fraction={self.cfg.unlabeled_end_fraction} ends the unlabeled '
                f'loss at step {end}, but it starts at step {self.unlabeled_start}. Raise '
                'unlabeled_end_fraction, or start earlier.'
            )
        checkpointed = checkpointed_modules(self)
        if checkpointed and self.several_forwards and get_world_size() > 1:
            remedy = ', or set semi_train_cfg.joint_forward=True' * hasattr(
                self.cfg, 'joint_forward'
            )
            raise ValueError(
                f'activation_checkpointing of {next(iter(checkpointed))} does not work with the several '
                f'forward passes of {type(self).__name__} on several processes. Remove it{remedy}.'
            )
        require_gradients(checkpointed)
        self._warn_of_dropout()
        if any(trains_sigmoids(getattr(self, name)) for name in self.networks):
            print_log(
                'All losses of the decode head have use_sigmoid=True, but the confidence of pseudo-labels is '
                'the softmax, so thresholds such as tau do not have their meaning. Set use_sigmoid=False in '
                'decode_head.loss_decode, or add a CrossEntropyLoss.',
                logger='current',
                level=logging.WARNING,
            )

    def fewest_images(self, labeled: int, unlabeled: int) -> dict[str, int]:
        """Return, by network, the smallest number of images in one forward pass in train mode.

        Batch normalization needs two images if its input has one pixel, as after global pooling. Networks that
        are always in eval mode are left out.

        Args:
            labeled (int): Labeled images per process and iteration.
            unlabeled (int): Unlabeled images per view, process and iteration.
        """
        fewest = self.images_of_a_forward(labeled, unlabeled)
        cfg = self.cfg
        start = cfg.unlabeled_start or cfg.unlabeled_start_epochs or cfg.unlabeled_start_fraction
        if start or cfg.unlabeled_end_fraction < 1:
            fewest = min(fewest, labeled)
        return {name: fewest for names in self.optimized.values() for name in names}

    def images_of_a_forward(self, labeled: int, unlabeled: int) -> int:
        """Same as :meth:`fewest_images`, for the optimized networks after the start of the unlabeled loss."""
        joint = getattr(self.cfg, 'joint_forward', True)
        return labeled + unlabeled if joint else min(labeled, unlabeled)

    def _warn_of_dropout(self) -> None:
        names = self.labeling_in_train_mode
        # All networks have the same architecture. Modules added by the method have their own dropout settings.
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
            f'{more}. Pseudo-labels are therefore random. {remedy}.',
            logger='current',
            level=logging.WARNING,
        )

    # ------------------------------------------------------------------ losses
    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss terms and the diagnostics of one batch.

        Every key that contains ``loss`` is optimized. The key of a diagnostic must not contain it.
        """
        raise NotImplementedError(
            f'{type(self).__name__} does not implement semi_loss. Implement it.'
        )

    def labeled_only_loss(self, batch: Batch, update: str) -> dict[str, Tensor]:
        """Return the losses of an update before the start and after the end of the unlabeled loss."""
        network = getattr(self, self.optimized[update][0])
        output = self.forward_network(network, batch.labeled.images, len(batch.labeled))
        return self.labeled_loss(output, batch)

    def labeled_loss(
        self, output: NetworkOutput, batch: Batch, network: nn.Module | None = None
    ) -> dict[str, Tensor]:
        """Return the weighted losses of a network's heads on the labeled images. Default: the student."""
        network = self.student if network is None else network
        losses = head_losses(network, output, batch.labeled.samples)
        return {key: self.cfg.labeled_weight * loss for key, loss in losses.items()}

    def label_log(
        self, label: Tensor, view: UnlabeledImages, confidence: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return scalars on pseudo-labels for the log.

        Args:
            label (Tensor): int64 (N, H, W), pseudo-labels of a view before CutMix.
            view (UnlabeledImages): The view.
            confidence (Tensor, optional): (N, H, W). The share of pixels with at least ``tau`` is logged.
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
        """Optimizer step at which the unlabeled loss starts.

        Raises:
            ValueError: It depends on the length of the training, which is unknown.
        """
        if self.cfg.unlabeled_start_fraction:
            return self._step_at('unlabeled_start_fraction', 'set unlabeled_start')
        return self.steps_of(self.cfg.unlabeled_start, self.cfg.unlabeled_start_epochs)

    @property
    def unlabeled_end(self) -> int | None:
        """First optimizer step without the unlabeled loss, or None if the loss does not end.

        Raises:
            ValueError: The length of the training is unknown.
        """
        if self.cfg.unlabeled_end_fraction == 1:
            return None
        return self._step_at('unlabeled_end_fraction', 'leave the setting out')

    def _step_at(self, key: str, otherwise: str) -> int:
        """Return the optimizer step at a fraction of the training."""
        fraction = getattr(self.cfg, key)
        if self.clock.num_steps is None:
            raise ValueError(
                f'semi_train_cfg.{key}={fraction} needs the length of the training. Train with a loop of this '
                f'package (WholeStepIterTrainLoop), or {otherwise}.'
            )
        return round(fraction * self.clock.num_steps)

    @property
    def started(self) -> bool:
        """Whether the unlabeled loss has started. Computed on the host and equal on all ranks."""
        return self.clock.step >= self.unlabeled_start

    @property
    def ended(self) -> bool:
        """Whether the unlabeled loss has ended. Computed on the host and equal on all ranks."""
        end = self.unlabeled_end
        return end is not None and self.clock.step >= end

    def steps_of(self, steps: int, epochs: int) -> int:
        """Convert a length to optimizer steps. One setting gives it in steps, the other in epochs.

        Raises:
            ValueError: The length is in epochs, and no training loop has set :attr:`epoch_steps`.
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
        """Group the output of the preprocessor into the branches that the method needs."""
        return Batch.of(
            inputs,
            data_samples,
            self.unlabeled_branches,
            ignore_padding=self.cfg.ignore_padding,
            ignore_index=self.ignore_index,
            method=type(self).__name__,
        )

    def update_loss(self, update: str, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of one update."""
        try:
            if not self.started or self.ended:
                return self.labeled_only_loss(batch, update)
            return getattr(self, self.updates[update])(batch)
        except ValueError as error:
            if 'more than 1 value per channel' not in str(error):
                raise
            raise ValueError(f'{SINGLE_IMAGE} {SINGLE_IMAGE_REMEDY}') from error

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """Return the losses of all updates on one batch, without optimizer steps between them.

        Args:
            inputs (dict[str, Tensor]): Normalized images (n, 3, H, W) by branch.
            data_samples (dict[str, list[SegDataSample]]): Labels or valid masks by branch.
        """
        batch, losses = self.batch_of(inputs, data_samples), {}
        for update in self.updates:
            losses.update(self.update_loss(update, batch))
        return losses

    def forward(self, inputs, data_samples: dict | list | None = None, mode: str = 'tensor'):
        """Run the model as in MMSegmentation. The name of an update as ``mode`` takes a :class:`Batch`."""
        if mode in self.updates:
            return self.update_loss(mode, inputs)
        return super().forward(inputs, data_samples, mode)
