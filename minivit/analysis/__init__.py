"""Looking at networks and runs: plots of training curves."""
