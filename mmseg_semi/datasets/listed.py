"""Base of datasets with lists of image names; missing data raise one clear error."""

import os.path as osp

from mmseg.datasets import BaseSegDataset

from .backends import backend_of_images, is_local
from .paths import missing


class ListedSegDataset(BaseSegDataset):
    """Base of datasets with JPEG images, PNG label maps and lists of names without suffix.

    Args:
        ann_file (str): List of names without suffix, relative to ``data_root``.
        img_suffix (str): Suffix of the images.
        seg_map_suffix (str): Suffix of the label images.
        **kwargs: As for :class:`mmseg.datasets.BaseSegDataset`.

    Raises:
        FileNotFoundError: The list or the image folder does not exist.
    """

    def __init__(self, ann_file='', img_suffix='.jpg', seg_map_suffix='.png', **kwargs):
        super().__init__(
            ann_file=ann_file, img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs
        )

    def load_data_list(self):
        """Same as the base class, after checking that the data exist."""
        if self.backend_args is None:
            name = type(self).__name__
            if self.ann_file and not osp.exists(self.ann_file):
                raise FileNotFoundError(missing(name, 'ann_file', self.ann_file))
            folder = self.data_prefix.get('img_path') or ''
            local = is_local(backend_of_images(self, folder))
            if local and not osp.isdir(folder):
                raise FileNotFoundError(missing(name, 'data_prefix.img_path', folder or "''"))
        return super().load_data_list()
