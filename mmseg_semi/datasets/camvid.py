"""CamVid: road scenes from a driving car, in the 11-class version that SegNet made common."""

import os.path as osp

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from .paths import missing


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid with SegNet's 11 classes (Badrinarayanan et al., PAMI 2017), 480x360, 255 = void.

    ``tools/dataset_converters/camvid.py`` makes the files from the public copy.

    Args:
        ann_file (str): List of names without suffix, relative to ``data_root``.
        img_suffix (str): Suffix of the images; ``'.png'`` if the converter was told so.
        seg_map_suffix (str): Suffix of the label images.
        **kwargs: As for :class:`mmseg.datasets.BaseSegDataset`.

    Raises:
        FileNotFoundError: If the list or the image folder does not exist.
    """

    METAINFO = dict(
        classes=(
            'sky',
            'building',
            'pole',
            'road',
            'pavement',
            'tree',
            'sign',
            'fence',
            'car',
            'pedestrian',
            'bicyclist',
        ),
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [0, 0, 192],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    )

    def __init__(self, ann_file='', img_suffix='.jpg', seg_map_suffix='.png', **kwargs):
        super().__init__(
            ann_file=ann_file, img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs
        )

    def load_data_list(self):
        """As the base class, after a look whether the data are there at all."""
        if self.backend_args is None:
            if self.ann_file and not osp.exists(self.ann_file):
                raise FileNotFoundError(missing('CamVidDataset', 'ann_file', self.ann_file))
            folder = self.data_prefix.get('img_path') or ''
            if not osp.isdir(folder):
                raise FileNotFoundError(
                    missing('CamVidDataset', 'data_prefix.img_path', folder or "''")
                )
        return super().load_data_list()
