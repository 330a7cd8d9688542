"""Checks as hooks of `pre-commit`, in any repository and without an engine.

    repos:
      - repo: https://…/buildonce
        rev: v0.1.0
        hooks: [{id: buildonce-secrets}, {id: buildonce-sast}]

The same programs in the same versions, and the same rules, as in the pipeline's containers; they
are fetched into the user's cache when a hook runs for the first time.
"""
