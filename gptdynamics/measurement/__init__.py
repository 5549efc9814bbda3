"""Metrics of every test example: loss and accuracy, and BLEU, ROUGE-L and a task's own metrics of sampled text."""

from gptdynamics.measurement.generation import Generator
from gptdynamics.measurement.loss import TargetLosses, example_losses
from gptdynamics.measurement.scores import score_texts
from gptdynamics.measurement.test_set import TestSet

__all__ = ["Generator", "TargetLosses", "TestSet", "example_losses", "score_texts"]
