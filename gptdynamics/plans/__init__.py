"""Plans: which runs make a release. A plan is a TOML file; two come with the package."""

from gptdynamics.plans.plan import PLANS, Plan, PlanEntry, known_training, read_plan, usual_rate

__all__ = ["PLANS", "Plan", "PlanEntry", "known_training", "read_plan", "usual_rate"]
