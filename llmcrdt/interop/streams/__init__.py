"""Answers that come in as events: a reader for each API, behind one contract (``stream.py``)."""
