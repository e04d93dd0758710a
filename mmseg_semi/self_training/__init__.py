"""Self-training's procedures over files: pseudo-labels, scores of reliability, and what they are worth.

Each is one call on every process of a job. What it writes goes into one folder, image by image, so that the
same call continues what another one was killed in, and returns at once where there is nothing left to do.
"""

from .images import prediction_pipeline
from .labeling import pseudo_label
from .selection import select_reliable
from .truth import report_truth

__all__ = ['prediction_pipeline', 'pseudo_label', 'report_truth', 'select_reliable']
