"""Evaluation: a loader's videos to predictions (``predict``), to accuracies, to reports."""
