"""Unlabeled images from a folder or a list."""

import logging
import os.path as osp
from collections.abc import Iterator, Sequence

from mmcv.transforms import LoadAnnotations
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmseg.registry import DATASETS

from .backends import (
    backend_of,
    backend_of_images,
    is_local,
    join_path,
    look_for,
    read_bytes,
    require_listing,
    say_unasked,
)
from .files import Folders
from .names import IMAGE_ENDINGS, alike, is_hidden, left_out


@DATASETS.register_module()
class UnlabeledDataset(BaseDataset):
    """Images without annotations, from a folder or a list; no other files are opened.

    Args:
        img_dir: Image folder, relative to ``data_root`` unless absolute. Without a list, it is searched with
            its subfolders and the images are sorted by path. Hidden files and folders (``.ipynb_checkpoints``,
            ``._x.png``) are ignored; the log says so.
        ann_file: List of images, one per line, relative to ``data_root`` unless absolute. A line is an id
            (completed by ``img_suffix``) or a file name, relative to ``img_dir``. Windows line ends, blank
            lines and a missing last line end are accepted.
        img_suffix: Ending(s) of the images, case-insensitive. If an id matches several files, the first ending
            is used.
        data_root: Root folder of the other paths.
        data_prefix: mmseg's form of ``img_dir``, ``dict(img_path=...)``; set only one of the two.
        pipeline: Transforms; they must not load annotations.
        backend_args: MMEngine file backend of list and folder, None for local files. For images, set it in
            the pipeline's ``LoadImageFromFile``. A backend that cannot list a folder, such as
            LMDB or HTTP, needs ``ann_file``.
        **kwargs: Arguments of mmengine's ``BaseDataset`` (``metainfo``, ``indices``, ...).

    Raises:
        FileNotFoundError: The folder, the list or a listed image does not exist.
        ValueError: No image was found, a line of the list is not a relative path, or the pipeline needs labels.
    """

    ann_file: str
    data_prefix: dict[str, str]

    def __init__(
        self,
        img_dir: str = '',
        ann_file: str = '',
        img_suffix: str | Sequence[str] = IMAGE_ENDINGS,
        data_root: str = '',
        data_prefix: dict | None = None,
        pipeline: Sequence = (),
        backend_args: dict | None = None,
        **kwargs,
    ) -> None:
        if data_prefix and (img_dir or set(data_prefix) != {'img_path'}):
            raise ValueError(
                f'UnlabeledDataset img_dir={img_dir!r}, data_prefix={data_prefix!r} is not one folder of '
                'images. Set img_dir, or data_prefix=dict(img_path=...), and nothing else.'
            )
        self.img_suffix = (img_suffix,) if isinstance(img_suffix, str) else tuple(img_suffix)
        if not self.img_suffix or not all(isinstance(s, str) and s for s in self.img_suffix):
            raise ValueError(
                f"UnlabeledDataset img_suffix={img_suffix!r} must be an ending such as '.jpg', or several."
            )
        self.backend_args = dict(backend_args) if backend_args else None
        super().__init__(
            ann_file=ann_file,
            data_root=data_root or '',
            data_prefix=dict(img_path=img_dir or (data_prefix or {}).get('img_path', '')),
            pipeline=list(pipeline),
            **kwargs,
        )
        for transform in self.pipeline.transforms:
            if isinstance(transform, LoadAnnotations) or getattr(transform, 'cat_max_ratio', 1) < 1:
                raise ValueError(
                    f'UnlabeledDataset pipeline has {transform}, which needs labels. Leave out LoadAnnotations '
                    'and the cat_max_ratio of RandomCrop.'
                )

    @property
    def _folder(self) -> str:
        return self.data_prefix['img_path']

    def _join_prefix(self) -> None:
        # MMEngine's method lets the backend join paths, which HTTP does not support.
        root = self.data_root or ''
        if self.ann_file:
            self.ann_file = join_path(root, self.ann_file)
        self.data_prefix = {key: join_path(root, path) for key, path in self.data_prefix.items()}

    def load_data_list(self) -> list[dict]:
        """Return one ``dict(img_path=..., seg_fields=[])`` per image."""
        paths = self._listed() if self.ann_file else self._found()
        if not paths:
            where = f'the list {self.ann_file}' if self.ann_file else f'the folder {self._folder}'
            raise ValueError(
                f'UnlabeledDataset found no image in {where}. Set img_dir or ann_file to where the unlabeled '
                f'images are, and img_suffix, which is {self.img_suffix}, to their ending.'
            )
        return [dict(img_path=path, seg_fields=[]) for path in paths]

    def _found(self) -> list[str]:
        if not self._folder:
            raise ValueError(
                'UnlabeledDataset has no img_dir, ann_file or data_root. Set img_dir to the folder of images.'
            )
        backend = backend_of(self._folder, self.backend_args)
        local = is_local(backend)
        if local and not osp.isdir(self._folder):
            raise FileNotFoundError(
                f'{self._folder} is not a folder. Set img_dir (and data_root) of the unlabeled dataset to '
                'where the images are.'
            )
        require_listing(type(backend), self._folder, 'img_dir')
        names = backend.list_dir_or_file(self._folder, list_dir=False, recursive=True)
        suffixes = tuple(suffix.lower() for suffix in self.img_suffix)
        for sentence in left_out(self._folder) if local else ():
            print_log(sentence, logger='current')
        return sorted(
            osp.join(self._folder, name)
            for name in names
            if name.lower().endswith(suffixes) and not is_hidden(name)
        )

    def _listed(self) -> list[str]:
        backend = backend_of_images(self, self._folder or self.ann_file)
        exists = Folders() if is_local(backend) else None
        paths = [self._complete(name, exists) for name in self._lines()]
        missing, asked = look_for(paths, backend)
        if missing:
            hint = alike(missing[0]) if is_local(backend) else ''
            raise FileNotFoundError(
                f'{len(missing)} of {asked} images of {self.ann_file} do not exist, the first is '
                f'{missing[0]}{hint}. Correct the list (one id per line), img_dir={self._folder!r} or '
                f'img_suffix={self.img_suffix}.'
            )
        say_unasked(asked, len(paths), f'images of {self.ann_file}', backend)
        if len(set(paths)) < len(paths):
            print_log(
                f'{self.ann_file} lists {len(paths) - len(set(paths))} image(s) more than once; they are '
                'sampled more often.',
                logger='current',
                level=logging.WARNING,
            )
        return paths

    def _lines(self) -> Iterator[str]:
        backend = backend_of(self.ann_file, self.backend_args)
        if is_local(backend) and not osp.isfile(self.ann_file):
            raise FileNotFoundError(
                f'{self.ann_file} is not a file. Set ann_file (and data_root) of the unlabeled dataset to '
                'the list of its images, or leave ann_file out to take all images of img_dir.'
            )
        try:
            text = read_bytes(self.ann_file, backend).decode('utf-8-sig')
        except UnicodeDecodeError:
            raise ValueError(
                f'{self.ann_file} is not UTF-8 text. Save the list as plain text in UTF-8.'
            ) from None
        for number, line in enumerate(text.split('\n'), start=1):
            name = line.strip(' \r')
            if not name:
                continue
            if '\t' in name or name.startswith(('/', '\\')):
                raise ValueError(
                    f'{self.ann_file} line {number} is {name!r}, which is not an id or path relative to '
                    'img_dir. Give one per line, without leading slash and without tabs.'
                )
            yield name

    def _complete(self, name: str, exists: Folders | None) -> str:
        """Return the path of the listed ``name``, completed by the first ending that exists if it has none."""
        path = osp.join(self._folder, name)
        if name.lower().endswith(tuple(suffix.lower() for suffix in self.img_suffix)):
            return path
        candidates = [path + suffix for suffix in self.img_suffix]
        if exists is not None:
            candidates += [path + suffix.upper() for suffix in self.img_suffix]
        elif len(candidates) > 1:
            raise ValueError(
                f'{self.ann_file} has the id {name!r}, and img_suffix={self.img_suffix} does not tell which '
                'file it is. Set img_suffix to one ending, since a file backend is not searched.'
            )
        return next((c for c in candidates if exists is not None and c in exists), candidates[0])
