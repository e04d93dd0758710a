"""When things happen in a training: hooks, loops, optimizer wrappers."""

from .hooks import (
    AtomicCheckpointHook,
    FiniteLossHook,
    MeanTeacherHook,
    PrototypeInitHook,
    PseudoLabelMonitorHook,
    ReliableSelectionHook,
    ResumableRandomnessHook,
    StartupCheckHook,
)
from .optim import AutocastOptimWrapper, NetworkOptimWrapperConstructor
from .runner import StagedRunner, TeacherStudentTestLoop, TeacherStudentValLoop

__all__ = [
    'AtomicCheckpointHook',
    'AutocastOptimWrapper',
    'FiniteLossHook',
    'MeanTeacherHook',
    'NetworkOptimWrapperConstructor',
    'PrototypeInitHook',
    'PseudoLabelMonitorHook',
    'ReliableSelectionHook',
    'ResumableRandomnessHook',
    'StagedRunner',
    'StartupCheckHook',
    'TeacherStudentTestLoop',
    'TeacherStudentValLoop',
]
