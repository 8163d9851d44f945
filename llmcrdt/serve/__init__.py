"""Answers asks: a process with a model follows a library, and answers into its documents (docs/state-sync.md)."""

from .worker import Worker as Worker
