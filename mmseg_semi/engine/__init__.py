"""Hooks, training loops, optimizer wrappers and schedulers."""

from .class_iou import ClassIoUMetric
from .hooks import (
    AdaptiveRampUpHook,
    AtomicCheckpointHook,
    ClassCountHook,
    ClassDistributionHook,
    CostHook,
    EarlierModelHook,
    FiniteLossHook,
    FreezeHook,
    IterationHook,
    MatchCheckpointHook,
    MeanTeacherHook,
    MemoryFormatHook,
    PrototypeInitHook,
    PrototypeMeanHook,
    PseudoLabelMonitorHook,
    ReliableSelectionHook,
    ResumableRandomnessHook,
    ResumeCheckHook,
    StartupCheckHook,
    StepSchedulerHook,
)
from .optim import (
    AutocastOptimWrapper,
    NetworkOptimWrapperConstructor,
    NetworkOptimWrapperDict,
)
from .runner import StagedRunner, TeacherStudentTestLoop, TeacherStudentValLoop
from .schedulers import FinalPolyLR, NonzeroPolyLR
from .train_loops import (
    UnlabeledEpochTrainLoop,
    WholeStepEpochTrainLoop,
    WholeStepIterTrainLoop,
)

__all__ = [
    'AdaptiveRampUpHook',
    'AtomicCheckpointHook',
    'AutocastOptimWrapper',
    'ClassCountHook',
    'ClassDistributionHook',
    'ClassIoUMetric',
    'CostHook',
    'EarlierModelHook',
    'FinalPolyLR',
    'FiniteLossHook',
    'FreezeHook',
    'IterationHook',
    'MatchCheckpointHook',
    'MeanTeacherHook',
    'MemoryFormatHook',
    'NetworkOptimWrapperConstructor',
    'NetworkOptimWrapperDict',
    'NonzeroPolyLR',
    'PrototypeInitHook',
    'PrototypeMeanHook',
    'PseudoLabelMonitorHook',
    'ReliableSelectionHook',
    'ResumableRandomnessHook',
    'ResumeCheckHook',
    'StagedRunner',
    'StartupCheckHook',
    'StepSchedulerHook',
    'TeacherStudentTestLoop',
    'TeacherStudentValLoop',
    'UnlabeledEpochTrainLoop',
    'WholeStepEpochTrainLoop',
    'WholeStepIterTrainLoop',
]
