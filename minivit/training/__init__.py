"""Training: optimisers, schedules, recipes, checkpoints, run folders, and the loop that joins them.

Import what you need from the file that names it, for example ``from minivit.training.optimizers import
AdamW``. Nothing is imported here, so that a command can list the recipes without loading NumPy.
"""
