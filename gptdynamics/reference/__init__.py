"""Runs of a dataset repeated, to compute kernels that were not computed while they trained."""

from gptdynamics.reference.estimate import KernelEstimate, estimate_reference_kernels
from gptdynamics.reference.kernels import reference_kernels
from gptdynamics.reference.run import NotRepeatableError, ReferenceRun

__all__ = ["KernelEstimate", "NotRepeatableError", "ReferenceRun", "estimate_reference_kernels", "reference_kernels"]
