"""Self-training's procedures over files: pseudo-labels, scores of reliability, and what they are worth.

Each is one call on every process of a job. What it writes goes into one folder, image by image, so that the
same call continues what another one was killed in, and returns at once where there is nothing left to do.
"""

from .images import prediction_pipeline
from .labeling import pseudo_label
from .quality import measure_quality, network_names, quality_table
from .selection import select_reliable
from .truth import report_truth

__all__ = [
    'measure_quality',
    'network_names',
    'prediction_pipeline',
    'pseudo_label',
    'quality_table',
    'report_truth',
    'select_reliable',
]
