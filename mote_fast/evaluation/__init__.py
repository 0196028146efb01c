"""Evaluation: from a loader's videos to predictions (``predict``), accuracies and reports."""
