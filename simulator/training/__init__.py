"""Fitting simulators to runs."""

from simulator.training.train import TrainSettings, train_simulator

__all__ = ["TrainSettings", "train_simulator"]
