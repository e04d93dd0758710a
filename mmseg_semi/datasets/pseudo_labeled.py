"""Self-training: images with pseudo-labels, and a dataset that mixes them with labeled images."""

import copy
import json
import os
import os.path as osp
from collections.abc import Mapping, Sequence

from mmengine.dataset import Compose
from mmseg.registry import DATASETS, TRANSFORMS
from torch.utils.data import Dataset

from .backends import backend_of, read_bytes
from .children import (
    build_child,
    check_files_exist,
    check_seed,
    check_what,
    image_paths,
    read_by,
    sample_randomness,
    warn_of_shared_images,
    with_checks,
)
from .labels import VOID
from .names import is_hidden
from .partition import fill_lists
from .soft_labels import SOFT_SUFFIX
from .transforms.soft_labels import with_soft_labels
from .walk import leaves

#: Name of the summary in a folder of pseudo-labels. It is written last, so it marks a complete folder.
LABELS_SUMMARY = 'pseudo_labels.json'
MASK_SUFFIX = '.png'


def image_ids(dataset) -> list[str]:
    """Return the unique id of each image of an initialized dataset; masks and scores are stored under it.

    The id is the path relative to the image folder, with '/' and without the file ending. For several datasets,
    the image folder is the common folder of their image folders; if one of them has none, it is the common
    folder of all images.

    Returns:
        list[str]: Ids in the order of the dataset; images that ``RepeatDataset`` repeats have one id.

    Raises:
        ValueError: An image is listed twice, is outside of the folder, or differs from another only in its
            ending. Or a list of ids cannot contain its name, or it is hidden.
    """
    found = [leaf.dataset for leaf in leaves(dataset)]
    paths = [path for inner in found for path in image_paths(inner)]
    folders = [(getattr(inner, 'data_prefix', None) or {}).get('img_path') for inner in found]
    known = [folder for folder in folders if folder]
    if len(known) < len(folders):
        known = [osp.dirname(path) for path in paths]
    folder = osp.commonpath(known) if known else None
    seen: dict[str, str] = {}
    for path in paths:
        name = osp.splitext(osp.relpath(path, folder or '.'))[0].replace(os.sep, '/')
        if name.startswith('../'):
            raise ValueError(
                f'{path} lies outside of {folder}, so its pseudo-label cannot be stored. Set img_dir to a '
                'folder that holds all images.'
            )
        if not _can_be_listed(name):
            raise ValueError(
                f'{path!r} has a line break, or bytes that are not UTF-8, in its name, so lists of images '
                'cannot contain it. Rename it.'
            )
        if is_hidden(name):
            raise ValueError(
                f'{path} is hidden, since a name begins with a dot, so its pseudo-label would not be found. '
                'Rename it.'
            )
        if name in seen:
            twice = 'is listed twice' if seen[name] == path else f'and {seen[name]} have one name'
            raise ValueError(
                f'{path} {twice}, and pseudo-labels are kept by name. List every image once, under a '
                'name of its own.'
            )
        seen[name] = path
    return list(seen)


def _can_be_listed(name: str) -> bool:
    """Whether a text file can contain the name in a line."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return '\n' not in name and '\r' not in name


@DATASETS.register_module()
class PseudoLabeledDataset(Dataset):
    """The images of an unlabeled dataset that have a pseudo-label, with it as annotation.

    The masks are ``FOLDER/<id>.png`` (see :func:`image_ids`), as written by `tools/pseudo_label.py` and the
    stages of self-training. They hold the network's class indices, so ``reduce_zero_label`` is never applied,
    also if the pipeline's ``LoadAnnotations`` sets it. Void is 255 in the files, and ``ignore_index`` in the
    samples. The masks match the images as loaded, whatever ``drawn_on`` of the pipeline's ``LoadAnnotations``
    is.

    Args:
        images: Unlabeled dataset, config or object; its pipeline is not used.
        labels: Folder(s) of pseudo-labels, each with masks of different images.
        pipeline: Transforms; ``LoadAnnotations`` reads the mask, also after ``LoadShapes``.
        soft: Whether samples also have ``gt_soft_seg``, the soft labels stored beside the masks, for training
            with a ``SoftTargetHook``.

    Attributes:
        ignore_index (int): Void in the samples. ``SelfTrainingDataset`` sets it to that of its labeled images.

    Raises:
        FileNotFoundError: A folder is missing or incomplete.
        ValueError: There is no folder, a mask without an image, or an image with two masks; with ``soft``, a
            folder has no soft labels or the pipeline does not support them.
    """

    ignore_index = VOID

    def __init__(
        self,
        images,
        labels: str | Sequence[str] | None = None,
        pipeline: Sequence = (),
        soft: bool = False,
    ) -> None:
        if labels is None:
            raise ValueError(
                'PseudoLabeledDataset has no labels. Set them to the folder(s) that tools/pseudo_label.py or a '
                'stage of self-training wrote, or look at the config in the folder of a stage that has run.'
            )
        self.labels = [labels] if isinstance(labels, str) else list(labels)
        if isinstance(images, Mapping):
            images = read_by(images, pipeline)
        self.images = build_child('pseudo_labeled', images)
        names = image_ids(self.images)
        self.soft = soft
        #: Number of classes of the soft labels of each folder; empty without ``soft``.
        self.soft_classes: dict[str, int] = {}
        masks = self._masks(set(names))
        once = (path for leaf in leaves(self.images) for path in image_paths(leaf.dataset))
        known = dict(zip(once, names, strict=True))
        ids = [known[path] for path in image_paths(self.images)]
        # Image index, mask path, view and soft labels of each sample, in the order of the images.
        self._labeled = [(i, *masks[name]) for i, name in enumerate(ids) if name in masks]
        transforms = [_of_indices(t) for t in pipeline]
        self.pipeline = Compose(with_soft_labels(transforms) if soft else transforms)

    def _masks(self, ids: set[str]) -> dict[str, tuple[str, str, dict | None]]:
        """Return mask path, view and soft labels of each image that has a mask."""
        masks: dict[str, tuple[str, str, dict | None]] = {}
        for folder in self.labels:
            backend = backend_of(folder)
            if not hasattr(backend, 'list_dir_or_file'):
                raise ValueError(
                    f'{folder} is read through {type(backend).__name__}, which cannot list a folder. Copy the '
                    'pseudo-labels to the local disk.'
                )
            try:
                summary = read_bytes(osp.join(folder, LABELS_SUMMARY), backend)
            except (FileNotFoundError, NotADirectoryError):
                raise FileNotFoundError(
                    f'{folder} is not a finished folder of pseudo-labels ({LABELS_SUMMARY} is missing). Run '
                    'the stage or the tools/pseudo_label.py that writes it to its end.'
                ) from None
            found = backend.list_dir_or_file(folder, list_dir=False, recursive=True)
            # Names that begin with a dot are temporary files, or files of editors and systems.
            files = sorted(
                file for file in found if file.endswith(MASK_SUFFIX) and not is_hidden(file)
            )
            summary = json.loads(summary)
            expected, view = summary['num_images'], summary.get('drawn_on', 'displayed')
            k, num_classes = summary.get('soft'), len(summary.get('classes') or ())
            if self.soft and not k:
                raise ValueError(
                    f'{folder} has no soft labels, and train_dataloader.dataset.pseudo_labeled.soft=True. Make '
                    'the pseudo-labels again with soft=K of the stage (tools/pseudo_label.py --soft K), or set '
                    'soft=False.'
                )
            if self.soft:
                self.soft_classes[folder] = num_classes
            if len(files) != expected:
                raise FileNotFoundError(
                    f'{folder} has {len(files)} masks and {LABELS_SUMMARY} in it says {expected}. Remove the '
                    'folder and make the pseudo-labels again.'
                )
            for file in files:
                path = osp.join(folder, file)
                name = file.removesuffix(MASK_SUFFIX).replace(os.sep, '/')
                if name not in ids:
                    raise ValueError(
                        f'{path} is the mask of no image of the unlabeled dataset. Name the images that '
                        'the masks were made of, or remove it.'
                    )
                if name in masks:
                    raise ValueError(
                        f'{name} has two pseudo-labels, {masks[name][0]} and {path}. Name folders of different '
                        'images in `labels`.'
                    )
                soft = None
                if self.soft:
                    stored = path.removesuffix(MASK_SUFFIX) + SOFT_SUFFIX
                    soft = dict(path=stored, k=k, num_classes=num_classes)
                masks[name] = path, view, soft
        return masks

    def __len__(self) -> int:
        return len(self._labeled)

    def get_data_info(self, index: int) -> dict:
        """Return the info of a sample before loading; ``seg_map_path`` is its pseudo-label."""
        image, mask, view, soft = self._labeled[index]
        return {
            **self.images.get_data_info(image),
            'seg_map_path': mask,
            'drawn_on': view,
            'label_map': None if self.ignore_index == VOID else {VOID: self.ignore_index},
            'reduce_zero_label': False,
            'seg_fields': [],
            **({} if soft is None else {'soft_label': soft}),
        }

    def __getitem__(self, index: int) -> dict:
        return self.pipeline(self.get_data_info(index))


def _of_indices(transform):
    """Build a transform of pseudo-labels, which are class indices."""
    if isinstance(transform, Mapping):
        transform = TRANSFORMS.build(transform)
    if getattr(transform, 'reduce_zero_label', None):
        transform = copy.copy(transform)
        transform.reduce_zero_label = False
    return transform


@DATASETS.register_module()
class SelfTrainingDataset(Dataset):
    """Repeated labeled images and pseudo-labeled images as one list (ST++, Algorithm 1 and its code).

    With Nl labeled and Nu pseudo-labeled images, the list is ``labeled × max(1, ceil(Nu / Nl))`` followed by
    the pseudo-labeled images. So about half of the samples have ground truth. Without pseudo-labels, as for the
    teacher, a labeled list of fewer than ``double_below`` images is repeated twice, which only makes epochs
    longer.

    ``ShuffledSampler`` requests ``dataset[index, position]``, which seeds the transforms from ``(seed,
    position)``: a sample does not depend on workers, ranks or resumes. ``dataset[index]`` uses the current
    random states.

    Args:
        labeled: Any mmseg dataset, config or object.
        pseudo_labeled: Usually a ``PseudoLabeledDataset``, config or object; None to use only labeled images.
            It may be empty, for example if no image is reliable.
        double_below: Repeat the labeled list twice if it has fewer images, see above; 0 to never do so. ST++'s
            code uses 200.
        seed: Seed of the samples' randomness, at least 0.
        check_files: Whether to check image and mask files, see ``LabeledUnlabeledDataset``.
        partition: Replaces ``{partition}`` in the lists of the children, see ``LabeledUnlabeledDataset``.
        counted: Config of the images that define an epoch of ``UnlabeledEpochTrainLoop``; they are counted but
            not loaded.
        counted_batch: How many of these images the compared method has per batch; None: as many as the batch
            here has labeled images.

    Raises:
        FileNotFoundError: A list, folder, image or mask does not exist.
        ValueError: There is no labeled image, a setting is out of range, a list needs a partition but none is
            set, or one is set but no list needs it.
    """

    def __init__(
        self,
        labeled,
        pseudo_labeled=None,
        double_below: int = 200,
        seed: int = 0,
        check_files: bool | str = True,
        partition: str | None = None,
        counted: dict | None = None,
        counted_batch: int | None = None,
    ) -> None:
        check_seed(self, seed)
        check_what(self, check_files)
        if not isinstance(double_below, int) or double_below < 0:
            raise ValueError(
                f'SelfTrainingDataset double_below={double_below!r} must be a number of images, or 0 to '
                'never take the labeled list twice.'
            )
        self.seed = seed
        self.partition, self.counted_batch = partition, counted_batch
        given = dict(labeled=labeled, pseudo_labeled=pseudo_labeled, counted=counted)
        given = fill_lists(given, partition)
        labeled, pseudo_labeled, self.counted = given.values()
        self.labeled = build_child('labeled', labeled)
        self.pseudo_labeled = None
        if pseudo_labeled is not None:
            self.pseudo_labeled = build_child('pseudo_labeled', pseudo_labeled, may_be_empty=True)
        self._check_soft_classes()
        void = next(
            (getattr(leaf.dataset, 'ignore_index', VOID) for leaf in leaves(self.labeled)), VOID
        )
        for part in self._pseudo_labeled_parts():
            part.ignore_index = void
        if check_files:
            self._check_files(modes=check_files != 'complete')
        self.num_labeled = len(self.labeled)
        self.num_pseudo_labeled = 0 if self.pseudo_labeled is None else len(self.pseudo_labeled)
        self.copies = max(1, -(-self.num_pseudo_labeled // self.num_labeled))
        if self.pseudo_labeled is None and self.num_labeled < double_below:
            self.copies = 2
        warn_of_shared_images(
            self.labeled_paths(),
            self.pseudo_labeled_paths(),
            'they are trained on with both labels.',
        )

    def _check_files(self, modes: bool) -> None:
        classes = self.metainfo.get('classes')
        for kind in ('labeled', 'pseudo_labeled'):
            child = getattr(self, kind)
            if child is None:
                continue
            check_files_exist(child, kind, f'train_dataloader.dataset.{kind}')
            setattr(self, kind, with_checks(kind, child, len(classes) if classes else None, modes))

    @property
    def has_soft_labels(self) -> bool:
        """Whether pseudo-labeled samples carry ``gt_soft_seg``."""
        return bool(self._soft_classes())

    def _soft_classes(self) -> dict[str, int]:
        """Return the number of classes of the soft labels of each folder in use."""
        parts = self._pseudo_labeled_parts()
        return {folder: n for part in parts for folder, n in part.soft_classes.items()}

    def _pseudo_labeled_parts(self) -> list[PseudoLabeledDataset]:
        child = self.pseudo_labeled
        parts = [leaf.dataset for leaf in leaves(child)] if child is not None else []
        return [part for part in parts if isinstance(part, PseudoLabeledDataset)]

    def _check_soft_classes(self) -> None:
        number = len(self.metainfo.get('classes') or ())
        for folder, found in self._soft_classes().items():
            if number and found != number:
                raise ValueError(
                    f'{folder} has soft labels of {found} classes, and the labeled dataset names {number}. '
                    'Make them with a network of these classes, or with a label map.'
                )

    @property
    def metainfo(self) -> dict:
        """Meta information of the labeled child, such as classes and palette."""
        return self.labeled.metainfo

    def labeled_paths(self) -> list[str]:
        """Return the image paths of the labeled child, each once."""
        return image_paths(self.labeled)

    def pseudo_labeled_paths(self) -> list[str]:
        """Return the image paths of the pseudo-labeled child; empty without one."""
        return [] if self.pseudo_labeled is None else image_paths(self.pseudo_labeled)

    def get_data_info(self, index: int) -> dict:
        """Return the info of sample ``index`` before loading."""
        child, child_index = self._locate(index)
        return child.get_data_info(child_index)

    def __len__(self) -> int:
        return self.copies * self.num_labeled + self.num_pseudo_labeled

    def __getitem__(self, index: int | tuple[int, int]) -> dict:
        """Load a sample.

        Args:
            index: ``(index, position)`` or an index; labeled samples come first.

        Returns:
            What the child's pipeline packs: ``{'inputs': (C, H, W) uint8, 'data_samples': SegDataSample}``.
        """
        if not isinstance(index, tuple):
            child, child_index = self._locate(index)
            return child[child_index]
        index, position = index
        child, child_index = self._locate(index)
        with sample_randomness(self.seed, position):
            return child[child_index]

    def _locate(self, index: int):
        if not 0 <= index < len(self):
            raise IndexError(f'index {index} is not in a dataset of {len(self)} samples')
        repeated = self.copies * self.num_labeled
        if index < repeated:
            return self.labeled, index % self.num_labeled
        return self.pseudo_labeled, index - repeated
