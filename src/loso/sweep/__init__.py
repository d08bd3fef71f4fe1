"""A grid of recipes, chosen nested: inner folds choose, outer folds report."""
