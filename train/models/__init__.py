"""The models: towers, recipes, costs, and weights in the layouts of others."""
