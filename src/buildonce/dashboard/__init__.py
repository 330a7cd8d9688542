"""The dashboard: what runs in each environment and how it came there, read from the ledger.

    BUILDONCE_LEDGER=~/.local/share/buildonce/dashboard/ledger.sqlite python -m buildonce.dashboard

It only ever reads. Its image is the top-level Dockerfile; it knows of buildonce the ledger alone.
"""
