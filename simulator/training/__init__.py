"""Fitting simulators to runs."""

from simulator.settings.train import TrainSettings
from simulator.training.train import train_and_save, train_simulator

__all__ = ["TrainSettings", "train_and_save", "train_simulator"]
