"""What is wrong with files or settings ends the training with one sentence, the last line that a user sees."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS
from PIL import Image
from processes import TOOLS, run_tool
from tiny import tiny_segmentor
from tiny_run import dump, tiny_config, write_images


class Job:
    """A training of one iteration on a folder of files, to be spoilt and run."""

    def __init__(self, folder):
        self.folder = folder
        self.images = write_images(folder / 'images')
        short = {'train_cfg__max_iters': 1, 'train_cfg__val_interval': 9}
        self.config = tiny_config(folder / 'work', images=self.images, workers=1, **short)

    @property
    def data(self):
        return self.config.train_dataloader.dataset

    def ids(self, name):
        return (self.images / f'{name}.txt').read_text().split()

    def add(self, name, *ids):
        self.write(name, *self.ids(name), *ids)

    def write(self, name, *ids):
        (self.images / f'{name}.txt').write_text('\n'.join(ids))

    def image(self, name):
        """Path of the image that the set's only id names, after the list is cut to it."""
        first = self.ids(name)[0]
        self.write(name, first)
        return self.images / 'img_dir' / f'{first}.png'

    def mask(self):
        return self.images / 'ann_dir' / self.image('labeled').name

    def run(self, *arguments):
        dump(self.config, self.folder / 'config.py')
        return run_tool(TOOLS / 'train.py', 'config.py', *arguments, cwd=self.folder)


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


def change_file(path, change):
    image = change(np.array(Image.open(path)))
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)


def truncate(path):
    path.write_bytes(path.read_bytes()[:200])


def set_value(path, value):
    change_file(path, lambda label: np.full_like(label, value))


def settings(job, **changes):
    job.config.merge_from_dict({key.replace('__', '.'): value for key, value in changes.items()})


def model(job, **changes):
    settings(job, **{f'model__semi_train_cfg__{key}': value for key, value in changes.items()})


def hook(job, **changes):
    teacher = next(h for h in job.config.custom_hooks if h.type == 'MeanTeacherHook')
    teacher.update(changes)


def without_strong_branch(job):
    del job.data.unlabeled.pipeline[-1]['strong']


def other_architecture(job):
    network = tiny_segmentor(num_classes=6)
    path = job.folder / 'other.pth'
    torch.save({'state_dict': MODELS.build(network).state_dict(), 'meta': {}}, path)
    job.config.load_from = str(path)


def copy_into_validation(job):
    name = job.ids('unlabeled')[0]
    sources = {'img_dir': name, 'ann_dir': job.ids('labeled')[0]}  # it has no mask of its own
    for folder, source in sources.items():
        place = job.images / folder / 'copied' / f'{name}.png'
        place.parent.mkdir()
        place.write_bytes((job.images / folder / f'{source}.png').read_bytes())
    job.add('val', f'copied/{name}')


def plain_dataset(job):
    job.config.train_dataloader.dataset = job.data.labeled
    job.config.train_dataloader.sampler = {'type': 'InfiniteSampler'}


def auxiliary_head_of_other_classes(job):
    head = tiny_segmentor(auxiliary=True, num_classes=3)['auxiliary_head']
    job.config.model.segmentor.auxiliary_head = head


def no_padding(job):
    """A preprocessor that pads nothing, and crops of twice the images' size."""
    job.config.model.segmentor.data_preprocessor.size = None
    for child in (job.data.labeled, job.data.unlabeled):
        for transform in child.pipeline:
            if transform.type == 'RandomCrop':
                transform.crop_size = (64, 64)


# How the training is spoilt, and what its last line must say.
LISTS = {
    'empty labeled list': (
        lambda job: job.write('labeled'),
        r'The labeled dataset has no image \(.*labeled\.txt.*train_dataloader\.dataset\.labeled',
    ),
    'empty unlabeled list': (
        lambda job: job.write('unlabeled'),
        r'UnlabeledDataset found no image in the list \S*/unlabeled\.txt. Set img_dir or ann_file',
    ),
    'empty unlabeled folder': (
        lambda job: (
            (job.folder / 'none').mkdir(),
            job.data.unlabeled.update(ann_file='', img_dir=str(job.folder / 'none')),
        ),
        r'UnlabeledDataset found no image in the folder \S*/none. Set img_dir or ann_file',
    ),
    'missing list': (
        lambda job: (job.images / 'labeled.txt').unlink(),
        r'\S*/labeled\.txt \(from ann_file\) does not exist',
    ),
    'missing folder': (
        lambda job: job.data.unlabeled.update(img_dir='nowhere'),
        r'\S*/nowhere \(from img_dir\) does not exist',
    ),
    'labeled image in the validation list': (
        lambda job: job.add('val', job.ids('labeled')[0]),
        r'1 labeled images are also validation images, e\.g\. \S*/000000\.png. Remove them',
    ),
    'unlabeled image in the validation list': (
        lambda job: job.add('unlabeled', job.ids('val')[1]),
        r'1 unlabeled images are also validation images, e\.g\. \S*/000015\.png. Remove them',
    ),
    'copy of an unlabeled image among the validation images': (
        copy_into_validation,
        r'1 unlabeled images are copies of validation images, e\.g\. \S*/000\d+\.png. Remove them',
    ),
    'missing labeled image': (
        lambda job: job.image('labeled').unlink(),
        r'1 of 1 images of the labeled dataset do not exist, the first is \S*/000000\.png',
    ),
    'missing unlabeled image': (
        lambda job: job.add('unlabeled', 'nothing'),
        r'1 of 10 images of \S*/unlabeled\.txt do not exist, the first is \S*/nothing\.png',
    ),
    'missing mask': (
        lambda job: job.mask().unlink(),
        r'1 of 1 masks of the labeled dataset do not exist, the first is \S*/ann_dir/000000\.png',
    ),
    'missing validation image': (
        lambda job: job.add('val', 'nothing'),
        r'1 of 5 images of the validation dataset do not exist, the first is \S*/nothing\.png',
    ),
    'missing validation mask': (
        lambda job: (job.images / 'ann_dir' / '000015.png').unlink(),
        r'1 of 4 masks of the validation dataset do not exist, the first is \S*/000015\.png',
    ),
}
FILES = {
    'mask of another size': (
        lambda job: change_file(job.mask(), lambda label: label[:-2]),
        r'\S*/ann_dir/000000\.png is 30x32 \(height x width\) but its image \S* is 32x32',
    ),
    'label value beyond the classes': (
        lambda job: set_value(job.mask(), 6),
        r'\S*/ann_dir/000000\.png has the value 6, but the dataset has 6 classes',
    ),
    'color mask': (
        lambda job: change_file(job.mask(), lambda label: np.stack([label] * 3, -1)),
        r'\S*/ann_dir/000000\.png is a color image',
    ),
    'gray labeled image': (
        lambda job: change_file(job.image('labeled'), lambda image: image[..., 0]),
        r'\S*/000000\.png is .*gray.* not 8-bit RGB',
    ),
    'RGBA unlabeled image': (
        lambda job: change_file(
            job.image('unlabeled'), lambda image: Image.fromarray(image).convert('RGBA')
        ),
        r'\S*/000005\.png is .*RGBA.* not 8-bit RGB',
    ),
    '16-bit unlabeled image': (
        lambda job: change_file(
            job.image('unlabeled'), lambda image: image[..., 0].astype(np.uint16) * 257
        ),
        r'\S*/000005\.png is 16-bit, not 8',
    ),
    'truncated labeled image': (
        lambda job: truncate(job.image('labeled')),
        r'\S*/000000\.png is truncated. Copy it again, or take it out of the list',
    ),
    'truncated unlabeled image': (
        lambda job: truncate(job.image('unlabeled')),
        r'\S*/000005\.png is truncated. Copy it again, or take it out of the list',
    ),
    'text instead of an image': (
        lambda job: job.image('unlabeled').write_text('no image'),
        r'\S*/000005\.png cannot be read as an image',
    ),
    'crop larger than the image': (
        no_padding,
        r'.*000\d{3}\.png is \d+x\d+ \(height x width\) .*crop is larger than an image',
    ),
}
SETTINGS = {
    'classes of head and dataset': (
        lambda job: settings(job, model__segmentor__decode_head__num_classes=5),
        r'decode_head\.num_classes=5 but the dataset of train_dataloader has 6 classes',
    ),
    'classes of the auxiliary head': (
        auxiliary_head_of_other_classes,
        r'auxiliary_head\.num_classes=3 but the dataset of train_dataloader has 6 classes',
    ),
    'classes of head and validation': (
        lambda job: settings(
            job, val_dataloader__dataset__metainfo={'_delete_': True, 'classes': ['a', 'b']}
        ),
        r'decode_head\.num_classes=6 but the dataset of val_dataloader\.dataset has 2 classes',
    ),
    'checkpoint of another backbone': (
        lambda job: (other_architecture(job), settings(job, model__segmentor__backbone__depth=34)),
        r'\S*other\.pth has \d\d% of the encoder of the student of this config \(\d+ are not in it',
    ),
    'no labeled slot': (
        lambda job: settings(job, train_dataloader__sampler__labeled=0),
        r'LabeledUnlabeledSampler labeled=0 makes batches without labeled samples',
    ),
    'batch size': (
        lambda job: settings(job, train_dataloader__batch_size=8),
        r'train_dataloader\.batch_size=8 but the sampler makes batches of labeled=2 \+ unlabeled=2',
    ),
    'no strong branch': (
        without_strong_branch,
        r"IMAS needs the branch 'strong', but the batch has labeled, weak",
    ),
    'plain dataset': (
        plain_dataset,
        r'train_dataloader has a BaseSegDataset with a InfiniteSampler\. For semi-supervised',
    ),
    'endless under epochs': (
        lambda job: settings(
            job, train_cfg={'_delete_': True, 'type': 'EpochBasedTrainLoop', 'max_epochs': 1}
        ),
        r'the sampler has endless=True under EpochBasedTrainLoop. Set endless=False',
    ),
    'no teacher hook': (
        lambda job: job.config.custom_hooks.pop(),
        r"IMAS needs MeanTeacherHook. Add dict\(type='MeanTeacherHook'\) to custom_hooks",
    ),
    'tau': (lambda job: model(job, tau=1.5), r'semi_train_cfg\.tau must be in \[0, 1\], got 1\.5'),
    'weight': (
        lambda job: model(job, unlabeled_weight=-1),
        r'semi_train_cfg\.unlabeled_weight must be at least 0, got -1',
    ),
    'start': (
        lambda job: model(job, unlabeled_start=-5),
        r'semi_train_cfg\.unlabeled_start must be at least 0, got -5',
    ),
    'reading': (
        lambda job: model(job, untriggered='other'),
        r"semi_train_cfg\.untriggered must be 'official' or 'literal', got 'other'",
    ),
    'misspelled setting': (
        lambda job: model(job, taw=0.9),
        r'semi_train_cfg has no setting taw\. Did you mean tau\?',
    ),
    'CutMix probability': (
        lambda job: model(job, cutmix={'type': 'AdaptiveCutMix', 'prob': 2}),
        r'cutmix\.prob must be in \[0, 1\], got 2',
    ),
    'decay': (lambda job: hook(job, decay=1.2), r'decay must be in \[0, 1\], got 1\.2'),
    'loss weight': (
        lambda job: settings(job, model__segmentor__decode_head__loss_decode__loss_weight=-1),
        r'loss_weight=-1 is negative',
    ),
    'predicting network': (
        lambda job: settings(job, model__semi_test_cfg={'predict_on': 'pupil'}),
        r"semi_test_cfg\.predict_on='pupil' is not a network of IMAS",
    ),
}
CASES = {**LISTS, **FILES, **SETTINGS}


@pytest.mark.parametrize('name', CASES)
def test_last_line_is_the_sentence(name, job):
    spoil, sentence = CASES[name]
    spoil(job)
    result = job.run()
    assert result.code == 1
    assert re.match(rf'(error|\w+Error): ([\w ]+: )?{sentence}', result.last_line)
    assert result.last_line.endswith(('.', '?'))
    assert len(result.last_line) < 600


def test_image_in_both_training_lists_is_warned_about(job):
    job.add('unlabeled', job.ids('labeled')[0])
    result = job.run()
    assert result.code == 0, result.output
    assert re.search(
        r'WARNING - 1 image\(s\) are in the labeled and in the unlabeled set, the first is \S*000000',
        result.output,
    )


def test_masks_of_unlabeled_images_are_never_opened(job):
    """The unlabeled ids have no masks at all; and where they do, they may be broken."""
    for name in job.ids('unlabeled'):
        (job.images / 'ann_dir' / f'{name}.png').write_text('no mask')
    assert job.run().code == 0
    assert Path(job.folder / 'work' / 'iter_1.pth').exists()
