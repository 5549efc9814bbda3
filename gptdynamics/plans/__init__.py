"""Plans: which runs make a release. A plan is a TOML file; two come with the package."""

from gptdynamics.plans.plan import PLANS, Plan, PlanEntry, read_plan, usual_rate, usual_training

__all__ = ["PLANS", "Plan", "PlanEntry", "read_plan", "usual_rate", "usual_training"]
