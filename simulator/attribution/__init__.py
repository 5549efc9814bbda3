"""Effects of training examples on test examples, taken from a simulated run."""

from simulator.attribution.effects import LeaveOneOut, VisitDerivatives, leave_out, visit_derivatives

__all__ = ["LeaveOneOut", "VisitDerivatives", "leave_out", "visit_derivatives"]
