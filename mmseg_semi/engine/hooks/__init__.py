"""Hooks, one per file. A hook decides when something happens, the model what happens."""

from .adaptive_ramp_up_hook import AdaptiveRampUpHook
from .atomic_checkpoint_hook import AtomicCheckpointHook
from .class_count_hook import ClassCountHook
from .class_distribution_hook import ClassDistributionHook
from .cost_hook import CostHook
from .earlier_model_hook import EarlierModelHook
from .finite_loss_hook import FiniteLossHook
from .freeze_hook import FreezeHook
from .iteration_hook import IterationHook
from .match_checkpoint_hook import MatchCheckpointHook
from .mean_teacher_hook import MeanTeacherHook
from .memory_format_hook import MemoryFormatHook
from .prototype_init_hook import PrototypeInitHook
from .prototype_mean_hook import PrototypeMeanHook
from .pseudo_label_monitor_hook import PseudoLabelMonitorHook
from .reliable_selection_hook import ReliableSelectionHook
from .resumable_randomness_hook import ResumableRandomnessHook
from .resume_check_hook import ResumeCheckHook
from .soft_target_hook import SoftTargetHook
from .startup_check_hook import StartupCheckHook
from .step_scheduler_hook import StepSchedulerHook

__all__ = [
    'AdaptiveRampUpHook',
    'AtomicCheckpointHook',
    'ClassCountHook',
    'ClassDistributionHook',
    'CostHook',
    'EarlierModelHook',
    'FiniteLossHook',
    'FreezeHook',
    'IterationHook',
    'MatchCheckpointHook',
    'MeanTeacherHook',
    'MemoryFormatHook',
    'PrototypeInitHook',
    'PrototypeMeanHook',
    'PseudoLabelMonitorHook',
    'ReliableSelectionHook',
    'ResumableRandomnessHook',
    'ResumeCheckHook',
    'SoftTargetHook',
    'StartupCheckHook',
    'StepSchedulerHook',
]
