"""When things happen in a training: hooks, loops, optimizer wrappers."""

from .hooks import (
    AtomicCheckpointHook,
    ClassCountHook,
    ClassDistributionHook,
    FiniteLossHook,
    MeanTeacherHook,
    PrototypeInitHook,
    PrototypeMeanHook,
    PseudoLabelMonitorHook,
    ReliableSelectionHook,
    ResumableRandomnessHook,
    SetIterationHook,
    StartupCheckHook,
)
from .optim import AutocastOptimWrapper, NetworkOptimWrapperConstructor
from .runner import StagedRunner, TeacherStudentTestLoop, TeacherStudentValLoop

__all__ = [
    'AtomicCheckpointHook',
    'AutocastOptimWrapper',
    'ClassCountHook',
    'ClassDistributionHook',
    'FiniteLossHook',
    'MeanTeacherHook',
    'NetworkOptimWrapperConstructor',
    'PrototypeInitHook',
    'PrototypeMeanHook',
    'PseudoLabelMonitorHook',
    'ReliableSelectionHook',
    'ResumableRandomnessHook',
    'SetIterationHook',
    'StagedRunner',
    'StartupCheckHook',
    'TeacherStudentTestLoop',
    'TeacherStudentValLoop',
]
