"""The Hub: the short name of the dataset, and pushing to repositories.

The parts are imported from their modules; importing the package loads none of the slow libraries.
"""
