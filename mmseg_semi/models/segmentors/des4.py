"""DeS4: decoupled encoder and decoder, shared prototypes, multi-entropy sampling (IJCAI 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ...functional.losses import cross_entropy
from ...functional.mixing import paste
from ...functional.parts import masked_average_pool, resize_nearest
from ...functional.pseudo_label import confidence_and_label, label_entropy
from ...functional.sampling import RULES, STYLES, balanced_mask, pixel_weights
from ..features import at_least_float, map_features
from ..gradients import without_gradients
from ..memory import PrototypeUpdate, mean_over_ranks
from .base import (
    NetworkOutput,
    check_choices,
    evaluating,
    merge_settings,
    write_shared_once,
)
from .mean_teacher import MeanTeacherSegmentor


@MODELS.register_module()
class DeS4(MeanTeacherSegmentor):
    """DeS4, "Decoupling with Entropy-based Equalization for Semi-supervised Semantic Segmentation".

    The teacher's encoder averages the student's, its decoder does not: it learns from the labelled images on
    the detached features of that encoder, pixels weighed by how unsure it is of them (Eq. 5-8). Both networks
    classify by the cosine with the same prototypes (:class:`PrototypeClassifier`), which follow the
    teacher's features of the labelled images, sampled so that all classes and all levels of entropy have their
    share (Eq. 9-12). The student learns CutMix views of the unlabelled images from the teacher's labels,
    whatever their confidence (Eq. 3). No code of the authors exists: where the paper is silent or contradicts
    itself, a setting below holds our reading.

    One step costs a forward of the teacher without gradients, a joint forward and backward of the student on
    the labelled and unlabelled images, and a backward of the teacher's decoder on the labelled ones: 8
    forwards of an image pair, and 2 of a decoder.

    Settings of ``semi_train_cfg``:

    - ``temperature`` (float, 0.1): Of all softmaxes. The paper prints none; with 1.0, its letter, no
      probability of 21 classes exceeds 0.27, and weights and zones hardly differ.
    - ``weight_temperature`` (float | None, None): Of the softmax in the weights of Eq. 7 alone. None is
      ``temperature``, which sharpens the weights as well as the probabilities; 1.0 is the paper's letter.
    - ``normalize`` (bool, True): Features, their means and the prototypes have unit length in the update of
      the prototypes; False takes them as they are, as the paper prints it. Cosines have no length.
    - ``prototype_init`` ('first_batch' | 'labeled_set'): A class's first prototype is its mean over the
      first batch that shows it, before that batch's losses, or over the centers of all labelled images,
      before training (``PrototypeMeanHook``). A class without one is never predicted, and its pixels are void.
    - ``prototype_decay`` (float, 0.99): tau_2 of Eq. 12.
    - ``sampling`` ('multi_entropy' | 'quantity' | 'confidence'): Table 4. All draw the same number of a
      class's pixels: across zones of entropy, uniformly, or in proportion to the confidence.
    - ``class_ratio`` ('inverse' | 'literal'): n_min / n_c, which thins frequent classes, or the paper's
      n_c / n_min, which takes every pixel.
    - ``num_zones`` (int, 5), ``alpha`` (float, 0.1): k and alpha of Eq. 10-11.
    - ``labeled_weight`` (float, 1.0), ``unlabeled_weight`` (float, 1.5): lambda_1 and lambda_2 of Eq. 4.
    - ``unlabeled_start`` (int, 0): Optimizer steps in which all but the unlabelled loss is trained. U2PL's
      recipe, one epoch, is the number of optimizer steps per epoch that the log's first lines name.
    - ``decoupled_training`` (bool, True): False has a teacher that is an average as a whole, and no loss of it.
    - ``shared_head`` (bool, True): False gives each network prototypes of its own features.
    - ``pixel_reweighting`` (bool, True): False is Eq. 2, the plain mean, in the place of Eq. 8.
    - ``ignore_padding`` (bool, True): Padding of unlabelled images is not learnt from.
    - ``cutmix`` (dict | None): The CutMix of unlabelled images; None trains on the weak view.

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    unlabeled_branches = ('weak',)
    required_hooks = ('MeanTeacherHook', 'ClassCountHook')
    shared_modules = {'decode_head.conv_seg': 'prototypes'}
    train_defaults = {
        'temperature': 0.1,
        'weight_temperature': None,
        'normalize': True,
        'prototype_init': 'first_batch',
        'prototype_decay': 0.99,
        'sampling': 'multi_entropy',
        'class_ratio': 'inverse',
        'num_zones': 5,
        'alpha': 0.1,
        'labeled_weight': 1.0,
        'unlabeled_weight': 1.5,
        'unlabeled_start': 0,
        'decoupled_training': True,
        'shared_head': True,
        'pixel_reweighting': True,
        'ignore_padding': True,
        'cutmix': {'adaptive': False, 'prob': 1.0, 'style': 'u2pl'},
    }
    readings = {
        'temperature': 'of the cosine logits (Eq. 1-3)',
        'weight_temperature': 'of the weights (Eq. 7; None: that of the cosine logits)',
        'normalize': 'unit length in Eq. 12',
        'prototype_init': 'the first prototypes',
        'class_ratio': "the class's share of pixels (n_min / n_c or the letter)",
        'pixel_reweighting': 'Eq. 8 with the largest probability in Eq. 7, or Eq. 2',
        'num_zones': 'zones of entropy, the last closed (Eq. 10)',
        'alpha': 'of the zones of entropy (Eq. 11)',
        'sampling': 'how pixels are drawn (Table 4)',
        'unlabeled_start': 'optimizer steps of labeled training first',
        'ignore_padding': 'padding not learnt from',
        'cutmix': 'probability and box of CutMix',
    }

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        cfg = self.semi_train_cfg
        self.cutmix = self.build_cutmix()
        if cfg['prototype_init'] == 'labeled_set':
            self.required_hooks = (*self.required_hooks, 'PrototypeMeanHook')
        head = self.teacher.decode_head
        if cfg['decoupled_training'] and not any(True for _ in head.parameters()):
            raise ValueError(
                f'{type(head).__name__} has nothing to train but the classifier, which DeS4 replaces by '
                'prototypes, so that no decoder is left to the teacher: set '
                'semi_train_cfg.decoupled_training=False and pixel_reweighting=False, or choose a deeper head.'
            )
        # Here and for good: DistributedDataParallel sorts out the trained parameters when it is built.
        self.teacher.decode_head.requires_grad_(cfg['decoupled_training'])
        if cfg['shared_head']:
            # After the teacher's copy, which would otherwise have a classifier of its own.
            self.prototypes = self.teacher.decode_head.conv_seg = self.student.decode_head.conv_seg
            self._register_state_dict_hook(write_shared_once)
        else:
            self.shared_modules = {}
        self.prototype_updates = nn.ModuleDict(
            {
                name: PrototypeUpdate(
                    getattr(self, name).decode_head.conv_seg,
                    cfg['prototype_decay'],
                    cfg['normalize'],
                )
                for name in (('teacher',) if cfg['shared_head'] else ('student', 'teacher'))
            }
        )
        # Pixels of each class in the labelled set, void left out; ClassCountHook counts them.
        self.register_buffer('class_counts', torch.zeros(self.num_classes, dtype=torch.int64))
        # For the log: pseudo-labels, and samples by zone, since ClassDistributionHook has last read them.
        zones = cfg['num_zones'] if cfg['sampling'] == 'multi_entropy' else 1
        for name, shape in {'pseudo_label_counts': (), 'sample_counts': (zones,)}.items():
            counts = torch.zeros(self.num_classes, *shape, dtype=torch.int64)
            self.register_buffer(name, counts, persistent=False)

    @classmethod
    def network_config(cls, segmentor: dict, semi_train_cfg: dict) -> dict:
        cfg = merge_settings('semi_train_cfg', cls.train_defaults, semi_train_cfg)
        _check_settings(cfg)
        head = {'type': 'PrototypeHead', 'head': segmentor['decode_head']}
        return {**segmentor, 'decode_head': {**head, 'temperature': cfg['temperature']}}

    @property
    def decoupled(self) -> bool:
        return self.semi_train_cfg['decoupled_training']

    def train(self, mode: bool = True) -> DeS4:
        super().train(mode)
        self.teacher.decode_head.train(mode and self.decoupled)
        return self

    def is_averaged(self, name: str) -> bool:
        """The encoder with its neck; the prototypes, whosoever they are, never (Eq. 5)."""
        encoder = name.startswith(('backbone.', 'neck.'))
        # Auxiliary heads are the student's, for training alone.
        left_out = ('decode_head.conv_seg.', 'auxiliary_head.')
        return encoder or not (self.decoupled or name.startswith(left_out))

    def optimized_alike(self) -> dict[nn.Parameter, nn.Parameter]:
        """The teacher's decoder learns at the rates of the student's."""
        if not self.decoupled:
            return {}
        heads = self.student.decode_head, self.teacher.decode_head
        return dict(zip(*(head.parameters() for head in heads), strict=True))

    def loss(self, inputs: dict[str, Tensor], data_samples: dict[str, list]) -> dict[str, Tensor]:
        """One iteration, up to the optimizer step."""
        self.check_branches(inputs)
        cfg, labeled, weak = self.semi_train_cfg, inputs['labeled'], inputs['weak']
        started = self.clock.step >= cfg['unlabeled_start']
        label = torch.cat([sample.gt_sem_seg.data for sample in data_samples['labeled']]).long()

        with without_gradients():
            encoded = self.teacher.extract_feat(torch.cat([labeled, weak]) if started else labeled)
        first, second = (
            map_features(lambda one, part=part: one[part], encoded)
            for part in _halves(len(labeled))
        )
        teacher = self.forward_heads(self.teacher, first, tap=True)
        self._check_graph('teacher', teacher.decoder, self.decoupled)
        teacher = self.classify(self.teacher, teacher, label)
        images, losses = labeled, {}
        if started:
            mixed, pseudo_label, losses = self.make_targets(second, weak, data_samples['weak'])
            images = torch.cat([labeled, mixed])

        own = not cfg['shared_head']
        student = self.forward_network(self.student, images, len(labeled), tap=own)
        self._check_graph('student', student.logits)
        if own:
            student = self.classify(self.student, student, label)
        first = student._replace(logits=student.logits[: len(labeled)])
        known = _samples(self.student.decode_head.conv_seg.known(label))
        for key, value in self.labeled_loss(self.student, first, known).items():
            losses[key] = cfg['labeled_weight'] * value
        if started:
            term = self._cross_entropy(student.logits[len(labeled) :], pseudo_label)
            losses['loss_unlabeled'] = cfg['unlabeled_weight'] * term
        if self.decoupled:
            known = self.teacher.decode_head.conv_seg.known(label)
            losses['loss_teacher'] = self.teacher_loss(teacher.logits, known)
        if own:
            self.collect('student', student, label)
        return {**losses, **self.collect('teacher', teacher, label)}

    def classify(self, network: nn.Module, output: NetworkOutput, label: Tensor) -> NetworkOutput:
        """Set the prototypes of the classes that are new in the labelled images, then classify all.

        Args:
            network (nn.Module): Whose classifier it is.
            output (NetworkOutput): Tapped, of labelled images and perhaps others behind them.
            label (Tensor): int64 (B, H, W) of the labelled ones.
        """
        classifier = network.decode_head.conv_seg
        means, counts = self._class_means(output.decoder, self._to_grid(label, output.decoder))
        classifier.start(means, counts > 0, self.semi_train_cfg['normalize'])
        return output._replace(logits=classifier(output.decoder))

    @without_gradients()
    def make_targets(
        self, encoded: list[Tensor], weak: Tensor, data_samples: list
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Label the weak images, whatever the confidence, and cut and paste both (Eq. 3).

        Args:
            encoded (list[Tensor]): Stages of the teacher's encoder of the weak images.
            weak (Tensor): (N, 3, H, W).
            data_samples (list): With the valid masks.

        Returns:
            tuple: The images, int64 labels (N, H, W) of them, and scalars for the log.
        """
        with evaluating(self.teacher.decode_head):
            logits = self.forward_heads(self.teacher, encoded).logits
        confidence, label = confidence_and_label(logits, tuple(weak.shape[-2:]), self.align_corners)
        valid = torch.cat([sample.valid_mask.data for sample in data_samples]).bool()
        counts = label.new_zeros(self.num_classes)
        counts.scatter_add_(0, label.flatten(), valid.flatten().to(counts.dtype))
        self.pseudo_label_counts += counts
        shares = [c / c.sum().clamp(min=1) for c in (counts, self.class_counts)]
        diagnostics = {
            'pseudo_label_entropy': label_entropy(label, self.num_classes, valid),
            'pseudo_label_distance': (shares[0] - shares[1]).abs().sum() / 2,
        }
        if self.semi_train_cfg['ignore_padding']:
            label = label.masked_fill(~valid, 255)
        if self.cutmix is None:
            return weak, label, diagnostics
        plan = self.cutmix.sample(confidence.new_zeros(len(weak)), tuple(weak.shape[-2:]))
        mixed, label = (paste(one, one[plan.partner], plan.boxes) for one in (weak, label))
        return mixed, label, {**diagnostics, 'cutmix_rate': plan.triggered.float()}

    def teacher_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The loss of the teacher's decoder, unsure pixels first (Eq. 7-8), or the plain mean (Eq. 2)."""
        if not self.semi_train_cfg['pixel_reweighting']:
            return self._cross_entropy(logits, label)
        temperature, rescaled = self.semi_train_cfg['weight_temperature'], logits.detach()
        if temperature is not None:
            rescaled = self.teacher.decode_head.conv_seg.at_temperature(rescaled, temperature)
        size = tuple(label.shape[-2:])
        confidence, _ = confidence_and_label(rescaled, size, self.align_corners)
        weight = pixel_weights(confidence, label)
        # The weights of an image sum to 1: the sum over its pixels is the weighted mean.
        return self._cross_entropy(logits, label, pixel_weight=weight, reduction='image_sum').mean()

    @torch.no_grad()
    def collect(self, name: str, output: NetworkOutput, label: Tensor) -> dict[str, Tensor]:
        """Sample features of the labelled images, whose mean a network's prototypes follow (Eq. 9-12).

        They follow when the optimizer has stepped: the losses of the step are computed with the prototypes as
        they were.

        Returns:
            dict[str, Tensor]: Scalars for the log.
        """
        cfg = self.semi_train_cfg
        label = self._to_grid(label, output.decoder)
        drawn, counts = balanced_mask(
            output.logits[: len(label)],
            label,
            self.class_counts,
            style=cfg['sampling'],
            rule=cfg['class_ratio'],
            num_zones=cfg['num_zones'],
            alpha=cfg['alpha'],
        )
        sampled = label.masked_fill(~drawn, 255)
        self.prototype_updates[name].collect(*self._pool(output.decoder[: len(label)], sampled))
        if name == 'teacher':
            self.sample_counts += counts
        share = counts.sum(dim=0) / counts.sum().clamp(min=1)
        return {
            'sampled_ratio': counts.sum() / (label != 255).sum().clamp(min=1),
            **{f'zone{i}_ratio': share[i] for i in range(len(share)) if len(share) > 1},
        }

    @without_gradients()
    def start_prototypes(self, images: Iterable[tuple[Tensor, Tensor]]) -> int:
        """Set the prototypes to the teacher's mean features of labelled images, this rank's share of all.

        The decoder normalizes by the statistics of each batch, as in training: at the start its running ones
        are of no image yet, and prototypes made with them would not fit the features that are trained. They
        end as they were.

        Args:
            images (iterable): Batches of at least 2 normalised images (B, 3, H, W) and int64 labels (B, H, W),
                255 = void; with SyncBN equally many batches on each rank.

        Returns:
            int: How many classes have a prototype now.
        """
        shape = self.teacher.decode_head.conv_seg.vectors.shape
        total = self.class_counts.new_zeros(1, *shape, dtype=torch.float64)
        number = self.class_counts.new_zeros(1, shape[0])
        with evaluating(self.teacher), _batch_statistics(self.teacher.decode_head):
            for image, label in images:
                features = self.forward_network(self.teacher, image, tap=True).decoder
                means, counts = self._pool(features, self._to_grid(label.long(), features))
                total = total + (means.double() * counts[..., None]).sum(dim=0)
                number = number + counts.sum(dim=0)
        means, counts = mean_over_ranks(total / number.clamp(min=1)[..., None], number)
        for network in (self.teacher, self.student):
            classifier = network.decode_head.conv_seg
            classifier.start(
                means.to(classifier.vectors), counts > 0, self.semi_train_cfg['normalize']
            )
        return int(classifier.seen.sum())

    def _class_means(self, features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mean feature (C, D) and pixels (C,) of each class over the labelled images of all ranks."""
        return mean_over_ranks(*self._pool(features[: len(label)], label))

    @torch.no_grad()
    def _pool(self, features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mean feature (B, C, D) and pixels (B, C) of each class in each image, the labels on the same grid."""
        features = at_least_float(features.detach())
        if self.semi_train_cfg['normalize']:
            features = nn.functional.normalize(features, dim=1)
        one_part = torch.zeros_like(label)
        means, counts = masked_average_pool(features, label, one_part, self.num_classes, 1)
        return means[:, :, 0], counts[:, :, 0]

    def _to_grid(self, label: Tensor, features: Tensor) -> Tensor:
        return resize_nearest(label, features.shape[-2:], self.align_corners)

    def _cross_entropy(self, logits: Tensor, label: Tensor, **kwargs) -> Tensor:
        return cross_entropy(logits, label, align_corners=self.align_corners, **kwargs)

    def _check_graph(self, name: str, output: Tensor, trained: bool = True) -> None:
        if trained and torch.is_grad_enabled() and not output.requires_grad:
            raise ValueError(
                f"the {name}'s decode head hands on no gradient, as under reentrant checkpointing: take "
                f'{name}.decode_head out of activation_checkpointing.'
            )

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        """Also take checkpoints of stock networks, whose 1x1 classifier has no place here."""
        starts = [f'{prefix}{name}.' for name in self.networks]
        if self.shared_modules and all(
            f'{start}decode_head.conv_seg.vectors' in state_dict for start in starts
        ):
            raise ValueError(
                'the checkpoint has prototypes of each network: set semi_train_cfg.shared_head=False as in the '
                'training that saved it, or load an export of one network.'
            )
        for start in (prefix, *starts):
            place = f'{start}decode_head.conv_seg.'
            if state_dict.pop(place + 'weight', None) is not None:
                state_dict.pop(place + 'bias', None)
                own = self.student.decode_head.conv_seg.state_dict()
                state_dict.update({place + key: value for key, value in own.items()})
                print_log(
                    f"The checkpoint's {place}weight is left out: classes have prototypes instead.",
                    logger='current',
                )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _halves(number: int) -> tuple[slice, slice]:
    return slice(None, number), slice(number, None)


def _samples(label: Tensor) -> list[SegDataSample]:
    """Data samples with these label maps (B, H, W)."""
    return [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in label]


@contextmanager
def _batch_statistics(network: nn.Module) -> Iterator[None]:
    """Let a network's normalization take the statistics of the batch inside the ``with`` block.

    Its running statistics are afterwards what they were before. Dropout and the like keep their mode.
    """
    norms = [module for module in network.modules() if hasattr(module, 'running_mean')]
    before = [(buffer, buffer.clone()) for module in norms for buffer in module.buffers()]
    modes = [module.training for module in norms]
    for module in norms:
        module.training = True
    try:
        yield
    finally:
        for module, mode in zip(norms, modes, strict=True):
            module.training = mode
        for buffer, value in before:
            buffer.copy_(value)


def _check_settings(cfg: dict) -> None:
    """Refuse values that no training could mean."""
    choices = {
        'prototype_init': ('first_batch', 'labeled_set'),
        'sampling': STYLES,
        'class_ratio': RULES,
    }
    check_choices(cfg, choices)
    for key in ('labeled_weight', 'unlabeled_weight', 'unlabeled_start'):
        if cfg[key] < 0:
            raise ValueError(
                f'semi_train_cfg.{key}={cfg[key]} is negative: give a number of at least 0.'
            )
    if not isinstance(cfg['weight_temperature'], (int, float, type(None))):
        raise ValueError(
            f'semi_train_cfg.weight_temperature={cfg["weight_temperature"]!r} is no number: give one, '
            'such as 1.0, or None for that of the similarities.'
        )
    for key in ('temperature', 'weight_temperature', 'alpha', 'num_zones'):
        if cfg[key] is not None and not cfg[key] > 0:
            raise ValueError(f'semi_train_cfg.{key}={cfg[key]} must be above 0.')
    if not 0 <= cfg['prototype_decay'] <= 1:
        raise ValueError(
            f'semi_train_cfg.prototype_decay={cfg["prototype_decay"]} is out of range: give a number in [0, 1].'
        )
    if cfg['pixel_reweighting'] and not cfg['decoupled_training']:
        raise ValueError(
            'semi_train_cfg.pixel_reweighting=True weighs the loss of a teacher that decoupled_training=False '
            'does not have: set both to False.'
        )
    if cfg['prototype_init'] == 'labeled_set' and not cfg['shared_head']:
        raise ValueError(
            "semi_train_cfg.prototype_init='labeled_set' starts both networks from the teacher's features, and "
            "shared_head=False wants those of each: set prototype_init='first_batch' or shared_head=True."
        )
