"""How much of each language goes on: methods, plans, and the sizes they start from."""
