"""The option `task.class_weights` of tasks on own data, and the metrics of single classes with and without it."""

from __future__ import annotations

WEIGHTS_HELP = (
    "balanced weights the cross-entropy with n / (k·n_c), for n examples trained on, n_c of them of the class, and k "
    "classes, as scikit-learn does; the primary metric then is balanced accuracy, the mean recall of the classes."
)
METRICS = {
    "none": ("macro_f1", "accuracy"),
    "balanced": ("balanced_accuracy", "macro_f1", "accuracy"),
}
"""The first is primary."""
