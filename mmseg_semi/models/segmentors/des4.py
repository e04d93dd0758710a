"""DeS4: decoupled encoder and decoder, shared prototypes, multi-entropy sampling (IJCAI 2023)."""

from __future__ import annotations

import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ...functional.losses import cross_entropy
from ...functional.pseudo_label import confidence_and_label
from ...functional.sampling import pixel_weights
from ..batch import VOID, Batch
from ..equalizer import Equalizer, EqualizerSettings
from ..features import split_features
from ..gradients import without_gradients
from ..settings import setting
from .loading import write_shared_once
from .mean_teacher import MeanTeacherSegmentor
from .networks import NetworkOutput, check_graph, evaluating, head_losses


@MODELS.register_module()
class DeS4(MeanTeacherSegmentor):
    """DeS4, "Decoupling with Entropy-based Equalization for Semi-supervised Semantic Segmentation".

    The teacher's encoder is an exponential moving average of the student's. The teacher's decoder is trained on
    the labeled images, with detached features of that encoder and with larger weights for uncertain pixels
    (Eq. 5-8). Both networks classify by cosine similarity with the same prototypes. The prototypes follow the
    teacher's features of the labeled images, sampled evenly over the classes and over levels of entropy
    (:class:`Equalizer`, Eq. 9-12). The student is trained on CutMix views of the unlabeled images with the
    teacher's pseudo-labels, without a confidence threshold (Eq. 3).

    Args: see :class:`~mmseg_semi.models.SemiSegmentor`.
    """

    class Settings(EqualizerSettings, MeanTeacherSegmentor.Settings):
        temperature: float = setting(
            0.1,
            'Temperature of all softmax functions. The paper has no temperature, which is 1.0.',
            above=0,
            reading='of the cosine logits (Eq. 1-3)',
        )
        weight_temperature: float | None = setting(
            None,
            'Temperature of the weights of Eq. 7; None uses the setting temperature.',
            above=0,
            reading='of the weights (Eq. 7; None: that of the cosine logits)',
        )
        unlabeled_start: int = setting(
            0,
            'Optimizer steps before the unlabeled loss starts. U2PL: one epoch on VOC.',
            low=0,
            reading='optimizer steps before the unlabeled loss',
        )
        unlabeled_weight: float = setting(
            1.5, 'lambda_2, weight of the unlabeled loss.', low=0, source='Eq. 4'
        )
        decoupled_training: bool = setting(
            True,
            'Train the decoder of the teacher. False: the whole teacher is an average, without a loss.',
            source='Table 3',
        )
        shared_head: bool = setting(
            True,
            'Share the prototypes. False: each network has prototypes of its own features.',
            source='Table 3',
        )
        pixel_reweighting: bool = setting(
            True,
            "Weight the pixels of the teacher's loss by Eq. 8. False: the plain mean of Eq. 2.",
            source='Eq. 7-8',
            reading='Eq. 8 with the largest probability in Eq. 7, or Eq. 2',
        )
        cutmix: dict | None = setting(
            {'type': 'AdaptiveCutMix', 'adaptive': False, 'prob': 1.0, 'style': 'u2pl'},
            'CutMix of unlabeled images; None trains on the unmixed weak view.',
            source='U2PL',
            reading='probability and box of CutMix',
        )

        def check(self) -> None:
            super().check()
            if self.pixel_reweighting and not self.decoupled_training:
                raise ValueError(
                    "semi_train_cfg.pixel_reweighting=True weights the teacher's loss, and with "
                    'decoupled_training=False there is none. Set both to False.'
                )
            if self.prototype_init == 'labeled_set' and not self.shared_head:
                raise ValueError(
                    "semi_train_cfg.prototype_init='labeled_set' needs shared prototypes, got "
                    "shared_head=False. Set prototype_init='first_batch' or shared_head=True."
                )

    cfg: Settings
    unlabeled_branches = ('weak',)
    required_hooks = ('MeanTeacherHook', 'ClassCountHook')
    shared_modules = {'decode_head.conv_seg': 'prototypes'}
    renamed_modules = {'class_counts': 'equalizer.class_counts'}

    def __init__(self, segmentor: dict, **kwargs) -> None:
        super().__init__(segmentor, **kwargs)
        cfg, head = self.cfg, self.teacher.decode_head
        if cfg.prototype_init == 'labeled_set':
            self.required_hooks = (*self.required_hooks, 'PrototypeMeanHook')
        if cfg.decoupled_training and not any(True for _ in head.parameters()):
            raise ValueError(
                f'{type(head).__name__} consists of a classifier only, so the teacher has no decoder to train. '
                'Set semi_train_cfg.decoupled_training=False and pixel_reweighting=False, or choose a deeper '
                'head.'
            )
        # Fixed here, since DistributedDataParallel collects the trained parameters when it is built.
        head.requires_grad_(cfg.decoupled_training)
        if cfg.shared_head:
            # After the teacher is copied. Otherwise it would have its own classifier.
            self.prototypes = head.conv_seg = self.student.decode_head.conv_seg
            self._register_state_dict_hook(write_shared_once)
        else:
            self.shared_modules = {}
        followed = ('teacher',) if cfg.shared_head else ('student', 'teacher')
        classifiers = {name: getattr(self, name).decode_head.conv_seg for name in followed}
        self.equalizer = Equalizer(classifiers, cfg, self.align_corners)

    @classmethod
    def network_config(cls, segmentor: dict, cfg: Settings) -> dict:
        head = {'type': 'PrototypeHead', 'head': segmentor['decode_head']}
        return {**segmentor, 'decode_head': {**head, 'temperature': cfg.temperature}}

    def train(self, mode: bool = True) -> DeS4:
        super().train(mode)
        self.teacher.decode_head.train(mode and self.cfg.decoupled_training)
        return self

    def fewest_images(self, labeled: int, unlabeled: int) -> dict[str, int]:
        fewest = super().fewest_images(labeled, unlabeled)
        # Its decoder is trained on the labeled images. Its encoder is in eval mode.
        return {**fewest, 'teacher': labeled} if self.cfg.decoupled_training else fewest

    def is_averaged(self, name: str) -> bool:
        """Whether a parameter follows the student's: all but those of a trained decoder.

        Prototypes never follow (Eq. 5).
        """
        # Only the student has auxiliary heads, and only in training.
        left_out = ('decode_head.conv_seg.', 'auxiliary_head.')
        decoder = ('decode_head.', 'auxiliary_head.')
        return not name.startswith(decoder if self.cfg.decoupled_training else left_out)

    def optimized_alike(self) -> dict[nn.Parameter, nn.Parameter]:
        """Give the teacher's decoder the learning rates of the student's."""
        heads = self.student.decode_head, self.teacher.decode_head
        pairs = zip(*(head.parameters() for head in heads), strict=True)
        return dict(pairs) if self.cfg.decoupled_training else {}

    def semi_loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return Eq. 4, with the unlabeled loss of Eq. 3."""
        encoded, weak = self.encode(batch.labeled.images, batch.weak.images)
        teacher = self.decode(encoded, batch)
        mixed, label, log = self.make_targets(weak, batch)
        student = self.study(batch, mixed)
        unlabeled = self._cross_entropy(student.logits[len(batch.labeled) :], label)
        return {
            **log,
            **self.student_loss(student, batch),
            'loss_unlabeled': self.cfg.unlabeled_weight * unlabeled,
            **self.teacher_loss(teacher, batch),
            **self.equalizer.collect({'student': student, 'teacher': teacher}, batch.labeled.label),
        }

    def labeled_only_loss(self, batch: Batch, update: str) -> dict[str, Tensor]:
        """Return Eq. 4 without the unlabeled loss."""
        encoded, _ = self.encode(batch.labeled.images)
        teacher, student = self.decode(encoded, batch), self.study(batch)
        return {
            **self.student_loss(student, batch),
            **self.teacher_loss(teacher, batch),
            **self.equalizer.collect({'student': student, 'teacher': teacher}, batch.labeled.label),
        }

    @without_gradients()
    def encode(self, labeled: Tensor, *weak: Tensor) -> tuple[list, list]:
        """Return the stages of the teacher's encoder for labeled images and for weak views."""
        encoded = self.teacher.extract_feat(torch.cat([labeled, *weak]))
        return split_features(encoded, len(labeled))

    def decode(self, encoded: list, batch: Batch) -> NetworkOutput:
        """Run the teacher's decoder on detached features of the labeled images (Eq. 6)."""
        output = self.forward_heads(self.teacher, encoded, tap=True)
        if self.cfg.decoupled_training:
            check_graph(output.decoder, 'teacher')
        return self.classify('teacher', output, batch)

    def study(self, batch: Batch, *views: Tensor) -> NetworkOutput:
        """Run the student on labeled images and views in one forward pass."""
        own, images = not self.cfg.shared_head, torch.cat([batch.labeled.images, *views])
        output = self.forward_network(self.student, images, len(batch.labeled), tap=own)
        check_graph(output.logits, 'student')
        return self.classify('student', output, batch) if own else output

    def classify(self, name: str, output: NetworkOutput, batch: Batch) -> NetworkOutput:
        """Initialize the prototypes of classes that are new in the labeled images, then classify."""
        self.equalizer.start(name, output.decoder, batch.labeled.label)
        return output._replace(logits=getattr(self, name).decode_head.conv_seg(output.decoder))

    @without_gradients()
    def make_targets(self, encoded: list, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Label the weak views without a threshold, and mix images and labels (Eq. 3).

        Returns:
            tuple: The mixed images (N, 3, H, W), their int64 labels (N, H, W), and scalars for the log.
        """
        weak = batch.weak
        with evaluating(self.teacher.decode_head):
            logits = self.forward_heads(self.teacher, encoded).logits
        _, label = self.most_probable(logits, batch.size)
        distance = self.equalizer.count_labels(label, weak.real)
        log = {**self.label_log(label, weak), 'pseudo_label_distance': distance}
        mix = self.cutmix.plan(len(weak), batch.size, label.device)
        images, label = mix(weak.images, label.masked_fill(~weak.valid, 255))
        return images, label, {**log, **mix.log}

    def student_loss(self, student: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        """Return Eq. 1. Pixels of classes without a prototype are void."""
        label = self.student.decode_head.conv_seg.known(batch.labeled.label)
        own = label.masked_fill(label == VOID, self.ignore_index)
        samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in own]
        first = student._replace(logits=student.logits[: len(label)])
        losses = head_losses(self.student, first, samples)
        return {key: self.cfg.labeled_weight * value for key, value in losses.items()}

    def teacher_loss(self, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of the teacher's decoder, if it is trained: Eq. 7-8, or the plain mean (Eq. 2)."""
        if not self.cfg.decoupled_training:
            return {}
        label = self.teacher.decode_head.conv_seg.known(batch.labeled.label)
        loss = self.reweighted_loss if self.cfg.pixel_reweighting else self._cross_entropy
        return {'loss_teacher': loss(teacher.logits, label)}

    def reweighted_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the cross-entropy with large weights for uncertain pixels (Eq. 7-8).

        The logits are small, the labels are (B, H, W).
        """
        temperature, rescaled = self.cfg.weight_temperature, logits.detach()
        if temperature is not None:
            rescaled = self.teacher.decode_head.conv_seg.at_temperature(rescaled, temperature)
        confidence, _ = confidence_and_label(rescaled, label.shape[-2:], self.align_corners)
        weight = pixel_weights(confidence, label)
        # The weights of an image sum to 1, so the sum over its pixels is the weighted mean.
        return self._cross_entropy(logits, label, pixel_weight=weight, reduction='image_sum').mean()

    def adapt_checkpoint(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """Also load checkpoints of stock networks, without their 1x1 classifier."""
        starts = [f'{prefix}{name}.' for name in self.networks]
        if self.shared_modules and all(
            f'{start}decode_head.conv_seg.vectors' in state_dict for start in starts
        ):
            raise ValueError(
                'The checkpoint has prototypes per network, but this config shares them. Set '
                'semi_train_cfg.shared_head=False as in its training, or load an export of one network.'
            )
        for start in (prefix, *starts):
            place = f'{start}decode_head.conv_seg.'
            self.student.decode_head.conv_seg.replace_linear(state_dict, place)

    def _cross_entropy(self, logits: Tensor, label: Tensor, **kwargs) -> Tensor:
        return cross_entropy(logits, label, align_corners=self.align_corners, **kwargs)
