"""Record the class distribution of pseudo-labels and of samples for prototypes."""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

from ._common import unwrap


@HOOKS.register_module()
class ClassDistributionHook(Hook):
    """Write the class distributions of pseudo-labels and labels, and the sampled pixels, to log and visualizer.

    The visualizer writes scalars, for example to ``vis_data/scalars.json``. For each class they are
    ``labeled_share/CLASS`` of the labeled set, ``pseudo_label_share/CLASS`` of all unlabeled pixels since the
    last record, and ``samples/CLASS/zoneI``, the pixels sampled for its prototype. The first two are Fig. 3 of
    the paper; ``tools/plot_class_distribution.py`` plots them. The model counts. A resumed run starts a new
    record.

    Args:
        interval (int): Iterations per record.

    Raises:
        ValueError: The model does not count classes, or the interval is below 1.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 500) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1, got {interval}.')
        self.interval = interval

    def before_train(self, runner) -> None:
        model = unwrap(runner.model)
        if not hasattr(model, 'equalizer'):
            raise ValueError(
                f'ClassDistributionHook does not support {type(model).__name__}, which does not count classes. '
                'Remove the hook from custom_hooks.'
            )

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if not (self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner)):
            return
        equalizer = unwrap(runner.model).equalizer
        pseudo, samples = equalizer.pseudo_label_counts.clone(), equalizer.sample_counts.clone()
        for counts in (pseudo, samples):
            all_reduce(counts)
        equalizer.pseudo_label_counts.zero_()
        equalizer.sample_counts.zero_()
        if is_main_process():
            classes = runner.train_dataloader.dataset.metainfo.get('classes')
            labeled = _shares(equalizer.class_counts)
            self._write(runner, classes, labeled, _shares(pseudo), samples.tolist())

    def _write(self, runner, classes, labeled: list, pseudo: list, samples: list) -> None:
        names = [str(name) for name in classes or range(len(labeled))]
        scalars = {}
        for name, *values, zones in zip(names, labeled, pseudo, samples, strict=True):
            scalars[f'labeled_share/{name}'], scalars[f'pseudo_label_share/{name}'] = values
            scalars.update({f'samples/{name}/zone{i}': number for i, number in enumerate(zones)})
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
        rows = [
            f'{name} {100 * share:.1f} ({100 * of_labels:.1f}) {zones}'
            for name, share, of_labels, zones in zip(names, pseudo, labeled, samples, strict=True)
        ]
        runner.logger.info(
            'Share of pseudo-labels (of labels) in percent, and samples of the prototype by zone: '
            + '; '.join(rows)
        )


def _shares(counts: torch.Tensor) -> list[float]:
    return (counts / counts.sum().clamp(min=1)).tolist()
