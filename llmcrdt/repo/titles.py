"""A title for a conversation that nobody gave one."""

LONGEST = 60  # characters


def title_from(words: str) -> str:
    """The first words of what begins the conversation, on one line."""
    line = " ".join(words.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + "…"
