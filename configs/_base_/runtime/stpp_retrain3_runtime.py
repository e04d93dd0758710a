# ST++ with the paper's further iteration ("re-train #3"): the last network labels all unlabeled images once
# more, and one more training uses these labels.
_base_ = './stpp_runtime.py'
stages = dict(
    label_all=dict(type='LabelStage', model='final', checkpoint='last'),
    retrain3=dict(
        type='TrainStage',
        cfg=dict(
            train_dataloader=dict(dataset=dict(pseudo_labeled=dict(labels=['stage://label_all'])))
        ),
    ),
)
