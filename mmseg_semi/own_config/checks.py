"""Whether a config that was made can be trained, found out before a training is started."""

from __future__ import annotations

from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS

from ..datasets.collate import collate_branches


def check_model(cfg: Config) -> None:
    """Build the model of a config, without loading weights.

    Raises:
        ValueError: The method cannot train this network.
    """
    try:
        MODELS.build(cfg.model)
    except ValueError as error:
        if 'segmentor' not in cfg.model:
            raise
        raise ValueError(
            f'{cfg.model.type} cannot train this network: {error} ST and ST++ take any network: --method stpp.'
        ) from error


def check_samples(cfg: Config) -> None:
    """Load the first labeled and the first unlabeled image as the training does.

    Self-training has no labels to load yet, so nothing is loaded for it.

    Raises:
        ValueError: An image does not pass its pipeline, or fits the preprocessor not.
    """
    if cfg.train_dataloader.dataset.type != 'LabeledUnlabeledDataset':
        return
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    samples = []
    for kind, index in (('labeled', 0), ('unlabeled', dataset.num_labeled)):
        try:
            samples.append(dataset[index])
        except Exception as error:  # of any transform; what it says is the report
            path = dataset.get_data_info(index).get('img_path')
            raise ValueError(
                f'{path} does not pass the pipeline of train_dataloader.dataset.{kind} '
                f'({type(error).__name__}: {error}). Correct that pipeline.'
            ) from error
    MODELS.build(cfg.model.data_preprocessor)(collate_branches(samples), training=True)
