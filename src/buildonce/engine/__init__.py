"""The embedded engine: Dagger's API, served over BuildKit.

It knows nothing of pipelines and stages, and they know nothing of it: they meet at Dagger's API.
`docs/architecture.md` follows one operation through it.
"""
