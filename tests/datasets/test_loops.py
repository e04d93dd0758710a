"""The sampler inside mmengine's own training loops: endless, by epochs, resumed."""

import multiprocessing

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=self.weight.sum() * 0)


class Record(Hook):
    """Names and pixel sums of every batch."""

    def __init__(self):
        self.batches = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.batches.append(
            [
                (sample.img_path[-6:], int(image.sum()))
                for branch in data_batch['inputs']
                for sample, image in zip(
                    data_batch['data_samples'][branch], data_batch['inputs'][branch], strict=True
                )
            ]
        )


@pytest.fixture
def train(config, tmp_path):
    def run(loop, endless, workers, name, **settings):
        record = Record()
        runner = Runner(
            model=Model(),
            work_dir=str(tmp_path / name),
            experiment_name=name,
            train_dataloader=dict(
                dataset=config,
                sampler=dict(
                    type='LabeledUnlabeledSampler', labeled=1, unlabeled=2, endless=endless
                ),
                batch_size=3,
                num_workers=workers,
                persistent_workers=workers > 0,
                collate_fn=dict(type='collate_branches'),
            ),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            train_cfg=loop,
            randomness=dict(seed=3),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4), logger=None
            ),
            custom_hooks=[record],
            default_scope='mmseg',
            log_level='ERROR',
            **settings,
        )
        runner.train()
        for worker in multiprocessing.active_children():
            worker.terminate()  # torch waits five seconds for each when the Runner is collected
        return record.batches

    return run


def by_iteration(count):
    return dict(type='IterBasedTrainLoop', max_iters=count, val_interval=100)


def test_loops(train):
    endless = train(by_iteration(9), True, 0, 'endless')
    assert len(endless) == 9
    assert [name[0] for name, _ in endless[0]] == ['l', 'u', 'u', 'u', 'u']

    with_workers = train(by_iteration(9), True, 2, 'workers')
    assert with_workers == endless

    by_epoch = dict(type='EpochBasedTrainLoop', max_epochs=3)
    for workers in (0, 2):
        assert train(by_epoch, False, workers, f'epochs{workers}') == endless


@pytest.mark.parametrize('workers', [0, 2])
def test_resume_continues_the_stream(train, tmp_path, workers):
    whole = train(by_iteration(7), True, workers, 'whole')
    resumed = train(
        by_iteration(7),
        True,
        workers,
        'resumed',
        load_from=str(tmp_path / 'whole/iter_4.pth'),
        resume=True,
    )
    assert resumed == whole[4:]
