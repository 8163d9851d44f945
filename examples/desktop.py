"""A desktop app of one file: a window (Tk) over a repo, which stays in step with other devices where a relay is known.

    python examples/desktop.py chats.db

Observers run on a thread of the repo's; Tk wants its own. So they only put into a queue, and the window looks into it.
"""

from __future__ import annotations

import queue
import sys
import tkinter as tk
from contextlib import ExitStack
from tkinter.scrolledtext import ScrolledText

import llmcrdt
from llmcrdt.exceptions import RelayUnreachable


class Window:
    """One conversation, with a line to write. Each line is an ask, and a worker that serves the library answers."""

    def __init__(self, root: tk.Tk, conv: llmcrdt.Conversation) -> None:
        self.root, self.conv = root, conv
        self.changes: queue.SimpleQueue[llmcrdt.Change] = queue.SimpleQueue()
        self.stop = conv.observe(self.changes.put)
        root.title(conv.title or "llmcrdt")
        self.words = ScrolledText(root, wrap="word", state="disabled", width=72, height=24)
        self.words.pack(fill="both", expand=True)
        self.line = tk.Entry(root)
        self.line.pack(fill="x")
        self.line.bind("<Return>", lambda _: self.say())
        self.line.focus()
        self.show()
        self.look()

    def say(self) -> None:
        text = self.line.get().strip()
        if text:
            self.conv.ask(text)
            self.line.delete(0, "end")

    def look(self) -> None:
        """Show what came; ten times a second."""
        changed = False
        while not self.changes.empty():
            self.changes.get()
            changed = True
        if changed:
            self.show()
        self.root.after(100, self.look)

    def show(self) -> None:
        self.words.configure(state="normal")
        self.words.delete("1.0", "end")
        for entry in self.conv.entries(last=200):
            self.words.insert("end", f"{entry.author or entry.role}: {entry.text}\n\n")
        self.words.configure(state="disabled")
        self.words.see("end")


def main(path: str) -> None:
    with ExitStack() as stack:
        repo = stack.enter_context(llmcrdt.open(path))
        try:
            stack.enter_context(repo.connect())
        except RelayUnreachable:
            print("No relay is known here: this device keeps its conversations to itself.", file=sys.stderr)
        known = repo.list(limit=1)
        root = tk.Tk()
        window = Window(root, repo.get(known[0].id) if known else repo.create(title="Chat"))
        root.mainloop()
        window.stop()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "chats.db")
