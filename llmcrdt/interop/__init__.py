"""Conversations in other formats <-> entries. Pure: JSON values in, drafts out, and back."""
