# ST++ with the paper's third re-training ("re-train #3"): the last network makes new pseudo-labels for all
# unlabeled images, and one more network is trained on them.
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
