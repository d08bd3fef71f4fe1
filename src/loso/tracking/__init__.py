"""A run told to an MLflow tracking store, beside its folder: optional, and nothing hangs on it."""
