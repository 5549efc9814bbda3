"""Gradients of single examples' losses: derivatives along directions, inner products, and sketches."""

from gptdynamics.gradients.directions import directional_derivatives
from gptdynamics.gradients.products import gradient_products
from gptdynamics.gradients.sketch import GradientSketch

__all__ = ["GradientSketch", "directional_derivatives", "gradient_products"]
