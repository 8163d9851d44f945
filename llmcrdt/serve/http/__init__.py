"""The HTTP APIs that clients of models speak, on the conversations of a repo (docs/serve.md). Needs Starlette and
uvicorn: ``llmcrdt[serve]``."""
