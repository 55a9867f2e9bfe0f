"""The lessons; ``python -m lessons`` lists them and checks exercises."""
