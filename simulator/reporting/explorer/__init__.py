"""The explorer: one page that simulates runs by itself, to ask what other training data would have done."""

from __future__ import annotations

from simulator.reporting.explorer.page import write_explorer
from simulator.reporting.explorer.payload import View, explorer_payload
from simulator.reporting.explorer.views import view_trained_here, views_of

__all__ = ["View", "explorer_payload", "view_trained_here", "views_of", "write_explorer"]
