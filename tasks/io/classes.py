"""What tasks on own data with one class for each example share: their metrics, and help on `task.class_weights`."""

from __future__ import annotations

METRICS = ("macro_f1", "balanced_accuracy", "accuracy")
"""The first is primary, with and without class weights: a score that depended on them could not compare them."""
WEIGHTS_HELP = (
    "balanced weights the cross-entropy with n / (k·n_c), for n examples trained on, n_c of them of the class, and k "
    "classes, as scikit-learn does. Macro-F1 stays primary; every run has balanced accuracy, the mean recall of the "
    "classes, beside it."
)
