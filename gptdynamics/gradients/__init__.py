"""Gradients of single examples' losses: derivatives along directions, inner products, and sketches."""

from gptdynamics.gradients.directions import directional_derivatives
from gptdynamics.gradients.kernels import Kernel, gradient_kernel
from gptdynamics.gradients.products import gradient_products
from gptdynamics.gradients.sketch import GradientSketch

__all__ = ["GradientSketch", "Kernel", "directional_derivatives", "gradient_kernel", "gradient_products"]
