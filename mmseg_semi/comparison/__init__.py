"""Compare methods: find configs, check that they are comparable, read results, and write a table."""

from .configs import (
    data_root_keys,
    drawn_seed_keys,
    find_config,
    metrics_of,
    networks_of,
    set_length,
    set_partition,
    trainings_of,
)
from .diagnosis import Symptom, diagnose
from .fairness import DECISIVE, baselines, common_reference, differences, facts, iterations_of
from .report import Row, Run, csv_text, markdown, rows
from .results import (
    Cost,
    Score,
    TrainingCost,
    read_class_ious,
    read_cost,
    read_scores,
    read_validations,
)
from .settings import settings_hash

__all__ = [
    'DECISIVE',
    'Cost',
    'Row',
    'Run',
    'Score',
    'Symptom',
    'TrainingCost',
    'baselines',
    'common_reference',
    'csv_text',
    'data_root_keys',
    'diagnose',
    'differences',
    'drawn_seed_keys',
    'facts',
    'find_config',
    'iterations_of',
    'markdown',
    'metrics_of',
    'networks_of',
    'read_class_ious',
    'read_cost',
    'read_scores',
    'read_validations',
    'rows',
    'set_length',
    'set_partition',
    'settings_hash',
    'trainings_of',
]
