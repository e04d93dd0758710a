"""What all methods share: several copies of one MMSegmentation network behind the stock interface.

A method wraps the ``model`` of any MMSegmentation config as ``segmentor``. It trains on batches with named
branches (``labeled``, ``weak``, ``strong``) and predicts, exports and loads plain checkpoints like the
network it wraps.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import BaseSegmentor, EncoderDecoder
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..clock import Clock
from ..gradients import no_stale_casts
from ..heads import tapped, tapping
from ..memory import OncePerStep
from ..mixers import AdaptiveCutMix, build_mixer


class NetworkOutput(NamedTuple):
    """Small logits of one network for a batch of images.

    Attributes:
        logits (Tensor): (N, C, h, w), as the decode head returns them.
        auxiliary (list[Tensor]): (M, C, h', w') of each auxiliary head, for the labeled images alone.
        encoder (list[Tensor]): Stages of the encoder (N, D', h', w'), where the head was tapped.
        decoder (Tensor, optional): (N, D, h, w), the features before the classifier, likewise.
    """

    logits: Tensor
    auxiliary: list[Tensor]
    encoder: list[Tensor] = ()
    decoder: Tensor | None = None


class SemiSegmentor(BaseSegmentor):
    """Base of the semi-supervised methods.

    A method names its networks in :attr:`networks`, builds them in ``__init__`` and implements :meth:`loss`.

    Args:
        segmentor (dict): Config of the network, the ``model`` of any MMSegmentation config whose decode
            head returns one map of logits with ``num_classes`` channels.
        data_preprocessor (dict, optional): Config of a
            :class:`~mmseg_semi.models.MultiBranchDataPreprocessor`. Default: the segmentor's own, with its
            type switched.
        semi_train_cfg (dict, optional): Settings of the method; the method's docstring lists them.
        semi_test_cfg (dict, optional): ``dict(predict_on=NAME)``: the network that predicts.
        init_cfg (dict, optional): Initialisation, after the networks' own.

    Raises:
        ValueError: The head cannot be trained on joint batches, or a setting is unknown or out of range.
    """

    #: Names of the submodules that are networks, one that is optimised first.
    networks: tuple[str, ...] = ('student',)
    #: Those of them that are built from the config; a method makes the others itself.
    built_networks: tuple[str, ...] = ('student',)
    #: Networks that are updated together, by the name of their optimizer wrapper.
    optimized: dict[str, tuple[str, ...]] = {'student': ('student',)}
    #: The network that predicts, unless ``semi_test_cfg`` names another.
    default_predictor: str = 'student'
    #: Settings of ``semi_train_cfg`` with their defaults.
    train_defaults: dict = {}
    #: Settings that choose a reading of what the paper leaves open or contradicts: key = what it decides.
    readings: dict[str, str] = {}
    #: Hooks without which the method silently does nothing; StartupCheckHook insists on them.
    required_hooks: tuple[str, ...] = ()
    #: Branches of unlabelled images that a batch must bring.
    unlabeled_branches: tuple[str, ...] = ()
    #: Unlabelled images that a batch brings for each that it learns: the streams of its sampler.
    unlabeled_batches: int = 1
    #: Prefixes of weights of a network that it needs for training alone: no plain checkpoint has them.
    training_only: tuple[str, ...] = ()
    #: Modules that all networks have in common: where a network has it, and where a checkpoint has it once.
    shared_modules: dict[str, str] = {}

    def __init__(
        self,
        segmentor: dict,
        data_preprocessor: dict | None = None,
        semi_train_cfg: dict | None = None,
        semi_test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        segmentor = copy.deepcopy(segmentor)
        # One preprocessor for all networks; the one inside would never be called.
        inner = segmentor.pop('data_preprocessor', None)
        if data_preprocessor is None:
            if inner is None:
                raise ValueError(
                    f'{type(self).__name__} has no data_preprocessor: set it, or the one of `segmentor`.'
                )
            data_preprocessor = dict(inner, type='MultiBranchDataPreprocessor')
        # Built here, since the base class only knows MMEngine's registry where no scope is set.
        super().__init__(data_preprocessor=MODELS.build(data_preprocessor), init_cfg=init_cfg)
        self.semi_train_cfg = merge_settings('semi_train_cfg', self.train_defaults, semi_train_cfg)
        config = self.network_config(segmentor, self.semi_train_cfg)
        for name in self.built_networks:
            # Built, not copied: each draws its own weights.
            network = MODELS.build(copy.deepcopy(config))
            _check_network(network)
            self.add_training_modules(network)
            self.add_module(name, network)
        self.semi_test_cfg = merge_settings(
            'semi_test_cfg', {'predict_on': self.default_predictor}, semi_test_cfg
        )
        self._check_network_name(self.semi_test_cfg['predict_on'])

    @classmethod
    def network_config(cls, segmentor: dict, semi_train_cfg: dict) -> dict:
        """The config of the network that predicts, without what only training needs; exports have it too."""
        return segmentor

    def add_training_modules(self, network: nn.Module) -> None:
        """Extend the network, before copies of it are made, by modules named in :attr:`training_only`."""

    def build_cutmix(self) -> AdaptiveCutMix | None:
        """The CutMix of a method that measures no hardness; None where the setting is None.

        Options that ``semi_train_cfg.cutmix`` leaves out are the method's own, not those of
        :class:`~mmseg_semi.models.AdaptiveCutMix`, and are filled in.
        """
        cfg = self.semi_train_cfg
        if cfg['cutmix'] is None:
            return None
        cfg['cutmix'] = {**self.train_defaults['cutmix'], **cfg['cutmix']}
        if cfg['cutmix']['adaptive']:
            raise ValueError(
                f'semi_train_cfg.cutmix={cfg["cutmix"]} adapts to the hardness of images, which '
                f'{type(self).__name__} does not measure: set adaptive=False with a prob.'
            )
        return build_mixer('AdaptiveCutMix', cfg['cutmix'])

    # ------------------------------------------------------------------ what stock tools read
    @property
    def predictor(self) -> nn.Module:
        """The network that ``predict_on`` names."""
        return getattr(self, self.semi_test_cfg['predict_on'])

    @property
    def decode_head(self) -> nn.Module:
        return self.predictor.decode_head

    @property
    def num_classes(self) -> int:
        return self.predictor.num_classes

    @property
    def out_channels(self) -> int:
        return self.predictor.out_channels

    @property
    def align_corners(self) -> bool:
        return self.predictor.align_corners

    def _check_network_name(self, name: str) -> None:
        if name not in self.networks:
            raise ValueError(
                f"predict_on='{name}' names no network of {type(self).__name__}: "
                f'choose one of {self.networks}.'
            )

    @contextmanager
    def predicting_with(self, name: str) -> Iterator[None]:
        """Let the network ``name`` predict inside the ``with`` block."""
        self._check_network_name(name)
        before = self.semi_test_cfg['predict_on']
        self.semi_test_cfg['predict_on'] = name
        try:
            yield
        finally:
            self.semi_test_cfg['predict_on'] = before

    @no_stale_casts()
    def extract_feat(self, inputs: Tensor) -> list[Tensor]:
        return self.predictor.extract_feat(inputs)

    @no_stale_casts()
    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        return self.predictor.encode_decode(inputs, batch_img_metas)

    @no_stale_casts()
    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        return self.predictor.predict(inputs, data_samples)

    @no_stale_casts()
    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Tensor:
        return self.predictor._forward(inputs, data_samples)

    # ------------------------------------------------------------------ training
    @abstractmethod
    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """Return the loss terms and the diagnostics of one batch.

        Every key that contains ``loss`` is optimised; no diagnostic's name may contain it.

        Args:
            inputs (dict[str, Tensor]): Normalised images (n, 3, H, W) by branch.
            data_samples (dict[str, list[SegDataSample]]): Labels, or valid masks, by branch.
        """

    def train_step(self, data: dict, optim_wrapper: OptimWrapper, call=None) -> dict[str, Tensor]:
        """Preprocess, compute the loss, update the weights once.

        Args:
            data (dict): A collated batch.
            optim_wrapper (OptimWrapper): Of the optimised network.
            call (callable, optional): The SemiDistributedDataParallel around this module; forwards that carry
                gradients go through it. Default: this module.

        Returns:
            dict[str, Tensor]: Scalars for the log.
        """
        call = self if call is None else call
        with self.stepping(optim_wrapper) as committed:
            with optim_wrapper.optim_context(call):
                data = self.data_preprocessor(data, True)
                losses = call(**data, mode='loss')
            parsed, log_vars = self.parse_losses(losses)
            optim_wrapper.update_params(parsed)
        return {**log_vars, **committed}

    #: The optimizer step that the running iteration belongs to.
    clock = Clock()

    @contextmanager
    def stepping(self, optim_wrapper: OptimWrapper) -> Iterator[dict[str, Tensor]]:
        """Read the clock, and let what is updated once per step be updated behind the optimizer's step.

        The modules are those derived from :class:`~mmseg_semi.models.memory.OncePerStep`. They collect during
        the micro-batches of a step. An optimizer calls its hook when it has stepped, and does not where a
        gradient scaler skips the step: then what was collected is discarded.

        Yields:
            dict[str, Tensor]: Scalars for the log, filled when the optimizer has stepped.
        """
        self.clock = Clock.of(optim_wrapper)
        modules = [module for module in self.modules() if isinstance(module, OncePerStep)]
        committed: dict[str, Tensor] = {}
        if not modules:
            yield committed
            return
        if self.clock.begins_step:
            for module in modules:
                module.discard()

        def commit(*_) -> None:
            for module in modules:
                committed.update(module.commit())

        handle = optim_wrapper.optimizer.register_step_post_hook(commit)
        try:
            yield committed
        finally:
            handle.remove()

    @no_stale_casts()
    def forward_network(
        self, network: nn.Module, images: Tensor, num_auxiliary: int = 0, tap: bool = False
    ) -> NetworkOutput:
        """Run one network.

        Auxiliary heads see all images, so that their batch normalization has the statistics of the joint batch
        (as in iMAS's and U2PL's code), and return the logits of the first ``num_auxiliary``, the labeled ones;
        with 0 they do not run.

        ``tap=True`` also returns the features of the encoder and of the decoder, whose tap must be installed.
        """
        return self.forward_heads(network, network.extract_feat(images), num_auxiliary, tap)

    @no_stale_casts()
    def forward_heads(
        self, network: nn.Module, features: list[Tensor], num_auxiliary: int = 0, tap: bool = False
    ) -> NetworkOutput:
        """As :meth:`forward_network`, from the encoder's features on."""
        decoder = None
        if tap:
            with tapping(network.decode_head):
                output = network.decode_head.forward(features)
            logits, decoder = tapped(output, network.decode_head)
        else:
            logits = network.decode_head.forward(features)
        if not isinstance(logits, Tensor):
            raise ValueError(
                f'{type(network.decode_head).__name__} returns {type(logits).__name__} in training, not '
                'one map of logits: choose a decode head that does.'
            )
        auxiliary = []
        if num_auxiliary and network.with_auxiliary_head:
            heads = _auxiliary_heads(network)
            auxiliary = [head.forward(features)[:num_auxiliary] for head in heads]
        return NetworkOutput(logits, auxiliary, list(features) if tap else [], decoder)

    def forward_views(
        self, network: nn.Module, labeled: Tensor, *views: Tensor, joint: bool = True
    ) -> tuple[NetworkOutput, list[Tensor]]:
        """Run one network on the labelled images and on the unlabelled views.

        Args:
            network (nn.Module): A wrapped segmentor.
            labeled (Tensor): (B, 3, H, W).
            *views (Tensor): Unlabelled images of the same H, W.
            joint (bool): One forward for all, so that batch normalisation sees all; else one for each.

        Returns:
            tuple: The labelled output and, per view, its small logits.
        """
        if not joint:
            output = self.forward_network(network, labeled, len(labeled))
            return output, [self.forward_network(network, view).logits for view in views]
        images = torch.cat([labeled, *views]) if views else labeled
        output = self.forward_network(network, images, len(labeled))
        first, *rest = output.logits.split([len(labeled), *map(len, views)])
        return NetworkOutput(first, output.auxiliary), rest

    def labeled_loss(
        self, network: nn.Module, output: NetworkOutput, data_samples: Sequence
    ) -> dict[str, Tensor]:
        """Return the losses that the network's own heads define on labelled images.

        The keys are MMSegmentation's (``decode.loss_ce``, ``aux.loss_ce``). The accuracy that stock heads
        log beside them is left out: it costs a third of the loss and waits for the device.
        """
        losses = _head_loss(network.decode_head, output.logits, data_samples, 'decode')
        heads = _auxiliary_heads(network)
        for index, (head, logits) in enumerate(zip(heads, output.auxiliary, strict=True)):
            prefix = (
                'aux' if not isinstance(network.auxiliary_head, nn.ModuleList) else f'aux_{index}'
            )
            losses.update(_head_loss(head, logits, data_samples, prefix))
        return losses

    def weighted_labeled_loss(
        self, output: NetworkOutput, data_samples: Sequence
    ) -> dict[str, Tensor]:
        """:meth:`labeled_loss` of the student, times the method's setting ``labeled_weight``."""
        losses = self.labeled_loss(self.student, output, data_samples)
        return {key: self.semi_train_cfg['labeled_weight'] * loss for key, loss in losses.items()}

    def check_branches(self, inputs: dict[str, Tensor]) -> None:
        """Refuse a batch that lacks a branch which the method learns from."""
        if not isinstance(inputs, dict):
            raise ValueError(
                f'{type(self).__name__} trains on batches with named branches, not on a plain batch: '
                'use LabeledUnlabeledDataset and collate_branches in train_dataloader.'
            )
        for branch in ('labeled', *self.unlabeled_branches):
            if branch not in inputs:
                raise ValueError(
                    f"the batch has branches {sorted(inputs)} but no '{branch}', which {type(self).__name__} "
                    'needs: check the sampler (labeled, unlabeled) and MultiBranch in train_dataloader.'
                )

    def optimized_alike(self) -> dict[nn.Parameter, nn.Parameter]:
        """Parameters outside of the optimised networks that learn at their rates: theirs = the other."""
        return {}

    def lr_scale(self, wrapper: str) -> float:
        """Factor of the learning rates of the networks in ``optimized[wrapper]``."""
        return 1.0

    def check_start(self) -> None:
        """Raise ValueError after checkpoints are loaded, before the first iteration, if it would be in vain."""

    # ------------------------------------------------------------------ checkpoints
    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        """Give a plain checkpoint to every network, and refuse one of another architecture.

        MMEngine's loader calls this method of each module and never ``load_state_dict``; what is rewritten
        here is what the children see.
        """
        names = [prefix + name + '.' for name in self.networks]
        for place, home in type(self).shared_modules.items():
            for key, value in _below(state_dict, f'{prefix}{home}.').items():
                state_dict.update({f'{name}{place}.{key}': value for name in names})
        plain = [
            key
            for key in state_dict
            if key.startswith((prefix + 'backbone.', prefix + 'decode_head.'))
        ]
        if plain and not any(key.startswith(tuple(names)) for key in state_dict):
            for key in [key for key in state_dict if key.startswith(prefix)]:
                value = state_dict.pop(key)
                for name in names:
                    state_dict[name + key[len(prefix) :]] = value
        for name, start in zip(self.networks, names, strict=True):
            own = _below(state_dict, start)
            if own:
                self._check_checkpoint(name, own)
                self.on_network_loaded(name)
        for place, home in self.shared_modules.items():
            for key, value in _below(state_dict, f'{names[-1]}{place}.').items():
                state_dict[f'{prefix}{home}.{key}'] = value
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def on_network_loaded(self, name: str) -> None:
        """Called once for each network whose weights a checkpoint brings."""

    def _check_checkpoint(self, name: str, weights: dict[str, Tensor]) -> None:
        network = getattr(self, name).state_dict()
        resized = _resized_at_loading(getattr(self, name))
        for key, value in weights.items():
            if key in network and network[key].shape != value.shape and key not in resized:
                raise ValueError(
                    f"the checkpoint's '{key}' has shape {tuple(value.shape)} but the {name} of this config "
                    f'{tuple(network[key].shape)}: load a checkpoint of the same architecture and classes.'
                )
        # Counters and auxiliary heads come and go between training and published checkpoints.
        optional = (
            'num_batches_tracked',
            'auxiliary_head',
            'data_preprocessor',
            *self.training_only,
        )
        unmatched = [
            key for key in network.keys() ^ weights.keys() if not any(o in key for o in optional)
        ]
        if unmatched:
            key = sorted(unmatched)[0]
            where = 'the checkpoint' if key in weights else f'the {name} of this config'
            raise ValueError(
                f"the checkpoint and the {name} differ in {len(unmatched)} weights, e.g. '{key}', which only "
                f'{where} has: load a checkpoint of the same architecture.'
            )
        auxiliary = [key for key in network if 'auxiliary_head' in key and key not in weights]
        if auxiliary:
            print_log(
                f'The checkpoint has no auxiliary head: the {name} starts with its own.',
                logger='current',
            )


def _resized_at_loading(network: nn.Module) -> set[str]:
    """Position embeddings that their module interpolates to its own grid when it loads them."""
    return {
        f'{name}.pos_embed'
        for name, module in network.named_modules()
        if hasattr(module, '_prepare_pos_embed')
    }


def write_shared_once(module: SemiSegmentor, state_dict: dict, prefix: str, *_) -> None:
    """Hook of ``state_dict`` that leaves a shared module's values under its own name alone."""
    for place in module.shared_modules:
        for name in module.networks:
            for key in _below(state_dict, f'{prefix}{name}.{place}.'):
                del state_dict[f'{prefix}{name}.{place}.{key}']


def _below(state_dict: dict, start: str) -> dict[str, Tensor]:
    """The values whose keys begin with ``start``, by the rest of their keys."""
    return {key[len(start) :]: v for key, v in state_dict.items() if key.startswith(start)}


def merge_settings(name: str, defaults: dict, given: dict | None) -> dict:
    given = {} if given is None else dict(given)
    unknown = set(given) - set(defaults)
    if unknown:
        raise ValueError(
            f'{name} has no setting {sorted(unknown)}: the settings are {sorted(defaults)}.'
        )
    for key, value in given.items():
        wanted = _kind_of(defaults[key])
        if wanted is not None and not _is_kind(value, wanted):
            raise ValueError(
                f'{name}.{key}={value!r} is no {wanted}: give one, such as {defaults[key]!r}.'
            )
    return {**copy.deepcopy(defaults), **given}


def check_ranges(cfg: dict, ranges: dict[str, tuple[float, float | None]]) -> None:
    """Refuse settings of ``semi_train_cfg`` outside their (lowest, highest) value; None is no limit."""
    for key, (low, high) in ranges.items():
        if cfg[key] < low or (high is not None and cfg[key] > high):
            most = '' if high is None else f' and at most {high}'
            raise ValueError(
                f'semi_train_cfg.{key}={cfg[key]} is out of range: give a number of at least {low}{most}.'
            )


def check_choices(cfg: dict, choices: dict[str, tuple[str, ...]]) -> None:
    """Refuse settings of ``semi_train_cfg`` that are none of their values."""
    for key, values in choices.items():
        if cfg[key] not in values:
            raise ValueError(
                f'semi_train_cfg.{key}={cfg[key]!r} is unknown: choose one of {values}.'
            )


def check_forwards(segmentor: dict, joint_forward: bool) -> None:
    """Refuse several forwards of a network with reentrant checkpoints, which breaks under DDP."""
    if not joint_forward and segmentor.get('backbone', {}).get('with_cp'):
        raise ValueError(
            'segmentor.backbone.with_cp=True checkpoints in a way that breaks the several forwards of '
            'joint_forward=False under DistributedDataParallel: set joint_forward=True or with_cp=False.'
        )


def _kind_of(default) -> str | None:
    """What a setting with this default must be, in a word; None where the default says nothing."""
    kinds = {bool: 'True or False', int: 'integer', float: 'number', dict: 'dict or None'}
    return kinds.get(type(default))


def _is_kind(value, wanted: str) -> bool:
    if wanted == 'dict or None':
        return value is None or isinstance(value, dict)
    if wanted == 'True or False':
        return isinstance(value, bool)
    accepted = int if wanted == 'integer' else (int, float)
    return isinstance(value, accepted) and not isinstance(value, bool)


def _check_network(network: nn.Module) -> None:
    head = getattr(network, 'decode_head', None)
    if not isinstance(network, EncoderDecoder) or not isinstance(head, BaseDecodeHead):
        raise ValueError(
            f'{type(network).__name__} with {type(head).__name__} cannot be wrapped: the segmentor must be an '
            'EncoderDecoder whose decode head derives from BaseDecodeHead.'
        )
    if head.out_channels != head.num_classes:
        raise ValueError(
            f'decode_head has out_channels={head.out_channels} for {head.num_classes} classes, but '
            'pseudo-labels need one channel per class: set out_channels=num_classes.'
        )


def _auxiliary_heads(network: nn.Module) -> list[nn.Module]:
    if not network.with_auxiliary_head:
        return []
    head = network.auxiliary_head
    return list(head) if isinstance(head, nn.ModuleList) else [head]


def _head_loss(
    head: BaseDecodeHead, logits: Tensor, data_samples: Sequence, prefix: str
) -> dict[str, Tensor]:
    """Apply a head's ``loss_decode`` to small logits (N, C, h, w)."""
    if type(head).loss_by_feat is not BaseDecodeHead.loss_by_feat:
        # A loss of the head's own making, which may wait for the device.
        losses = head.loss_by_feat(logits, data_samples)
        return {f'{prefix}.{key}': value for key, value in losses.items() if 'loss' in key}
    label = torch.stack([sample.gt_sem_seg.data for sample in data_samples])
    modules = (
        head.loss_decode if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]
    )
    small = all(getattr(module, 'accepts_small_logits', False) for module in modules)
    if not small or head.sampler is not None:
        logits = resize(
            logits, size=label.shape[2:], mode='bilinear', align_corners=head.align_corners
        )
    weight = None if head.sampler is None else head.sampler.sample(logits, label)
    losses: dict[str, Tensor] = {}
    for module in modules:
        extra = {'align_corners': head.align_corners} if small else {}
        value = module(
            logits, label.squeeze(1), weight=weight, ignore_index=head.ignore_index, **extra
        )
        key = f'{prefix}.{module.loss_name}'
        losses[key] = losses[key] + value if key in losses else value
    return losses


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Put networks into eval mode inside the ``with`` block, and each module back into its own afterwards."""
    training = [module for network in networks for module in network.modules() if module.training]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
