"""Ways to break each rule of docs/semantics.md in the code, and the test that must notice. Run by ``mutate.py``.

``old`` stands in ``file`` exactly once. ``test`` is what pytest is given.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One way to break one rule. ``name`` is how docs/semantics.md speaks of it."""

    rule: str
    name: str
    file: str
    old: str
    new: str
    test: str


_ORDER = "llmcrdt/document/order.py"
_READING = "llmcrdt/document/reading.py"
_CONVERSATION = "llmcrdt/document/conversation.py"
_SCHEMA = "llmcrdt/document/schema.py"
_TRANSCRIPT = "llmcrdt/document/transcript.py"
_ERASING = "llmcrdt/document/erasing.py"
_MESSAGES = "llmcrdt/prompt/messages.py"
_MODEL = "tests/document/test_order.py"
_RULES = "tests/document/test_rules.py::"
_TALK = "tests/document/test_conversation.py::"
_ERASE = "tests/document/test_erase.py::"
_RENDER = "tests/prompt/test_messages.py::"

MUTATIONS = (
    Mutation(
        "O1", "entries of one lamport stand as they came", _ORDER,
        "return (self.lamport, self.id)", 'return (self.lamport, "")', _MODEL,
    ),
    Mutation(
        "O1", "an entry may be as old as what it refers to", _ORDER,
        "if above >= node.lamport:", "if above > node.lamport:",
        _RULES + "test_o1_an_entry_stands_after_what_it_refers_to",
    ),
    Mutation(
        "O1", "a missing reference is no fault", _ORDER,
        """        if reference not in sound:
            return f"refers to {reference}, which is missing or malformed"
""",
        """        if reference not in sound:
            continue
""",
        _MODEL,
    ),
    Mutation(
        "O1", "an entry may replace one that it follows", _ORDER,
        "if target and target in ancestors(node, sound, sound[target].lamport):", "if False:",
        _RULES + "test_o1_nothing_stands_in_the_place_of_what_it_follows",
    ),
    Mutation(
        "O1", "a lamport may lie anywhere", _ORDER,
        "if node.lamport > above + REACH:", "if False:",
        _RULES + "test_o1_the_greatest_lamport_there_is_stops_nobody",
    ),
    Mutation(
        "O1", "a version shown once is shown again", _READING,
        "if cached and cached.sync == sync and cached.hash == _chosen(readable, pin)[1]:",
        "if cached and cached.sync == sync and (pin is None or cached.hash == pin):",
        _RULES + "test_o1_the_version_shown_does_not_depend_on_what_was_shown_before",
    ),
    Mutation(
        "O1", "a version is taken at its word", _SCHEMA,
        '_need(content_hash(role, cast(str, text)) == name, "version\'s hash is not that of its content")', "pass",
        "tests/document/test_malformed_documents.py::test_verify_names_the_entry_that_was_tampered_with",
    ),
    Mutation(
        "O2", "the best version is shown in a frame too", _READING,
        "version = next((v for v in readable.versions if v.hash == pin), None) or next(iter(readable.versions), None)",
        "version = next(iter(readable.versions), None)",
        _TALK + "test_a_frame_pins_the_version_it_saw",
    ),
    Mutation(
        "O2", "a frame's hash is not checked", _ORDER,
        "if frame.hash != extend_frame_hash(base.hash if base else EMPTY_FRAME, frame.pins):", "if False:",
        "tests/document/test_order.py::test_malformed_frames_take_no_part",
    ),
    Mutation(
        "O2", "a frame may hold what its entry doesn't follow", _ORDER,
        "    if not _follows(node, sound, named):", "    if False:",
        "tests/document/test_order.py::test_malformed_frames_take_no_part",
    ),
    Mutation(
        "O2", "a frame may repeat what its base holds", _ORDER,
        "if any(entry in appended for entry, _ in inner.pins):", "if False:",
        "tests/document/test_order.py::test_a_frame_that_repeats_what_its_base_holds_is_malformed",
    ),
    Mutation(
        "O2", "an unfinished entry goes into a frame", _TRANSCRIPT,
        "            if entry.hash is None:\n                unsealed.add(entry.id)",
        '            if entry.hash is None:\n                pins.append((entry.id, ContentHash("A" * 32)))',
        _TALK + "test_an_unfinished_entry_is_in_no_frame",
    ),
    Mutation(
        "O3", "the first generation begins the transcript", _ORDER,
        "latest = max(generated, key=lambda i: self._sound[i].age, default=None)",
        "latest = min(generated, key=lambda i: self._sound[i].age, default=None)", _MODEL,
    ),
    Mutation(
        "O3", "new input goes into the frame of the last generation", _ORDER,
        "            now.head += [*now.tail, node.id]", "            now.head += [node.id, *now.tail]", _MODEL,
    ),
    Mutation(
        "O3", "what a frame holds stands after it once more", _ORDER,
        "rest = by_age(visible.difference(head), self._sound)", "rest = by_age(visible, self._sound)", _MODEL,
    ),
    Mutation(
        "O4", "what is hidden is not listed", _READING,
        "return tuple(Elsewhere(self.entry(i), h.way, self._unseen(i, h)) for i, h in hidden_by.items())", "return ()",
        _TALK + "test_an_edit_shows_its_branch_and_select_brings_the_old_one_back",
    ),
    Mutation(
        "O4", "whoever hides has seen everything", _READING,
        "return all(i != entry and entry not in ancestors(sound[i], sound, sound[entry].lamport) for i in seen)",
        "return False",
        _TALK + "test_two_devices_that_answer_at_once_lose_nothing",
    ),
    Mutation(
        "O5", "results stand where their age puts them", _ORDER,
        "if call is not None and call in here:", "if False:",
        _TALK + "test_tool_results_stand_after_their_call_before_other_input",
    ),
    Mutation(
        "O5", "results of the last generation's calls wait for the others", _ORDER,
        "todo += reversed(results.get(last, []))", "todo[:0] = reversed(results.get(last, []))", _MODEL,
    ),
    Mutation(
        "O6", "the branch begun last is shown, not the one written on last", _ORDER,
        "        while hit := (above[i] | bits.get(i, 0)) & open_forks:",
        "        while hit := bits.get(i, 0) & open_forks:",
        _RULES + "test_o6_a_stale_edit_does_not_hide_a_branch_that_lives",
    ),
    Mutation(
        "O6", "a selection counts for nothing", _ORDER,
        "way = act_here.entry if act_here else written[group]", "way = written[group]",
        _TALK + "test_an_edit_shows_its_branch_and_select_brings_the_old_one_back",
    ),
    Mutation(
        "O6", "rival answers hide each other", _ORDER,
        "rival = act_here is None and sound[m].alternative_of is None and m not in replaced", "rival = False",
        _RULES + "test_o6_rival_answers_that_were_written_on_all_stay",
    ),
    Mutation(
        "O6", "the first selection wins", _ORDER,
        "(act.lamport, act.session) > (best.lamport, best.session)",
        "(act.lamport, act.session) < (best.lamport, best.session)", _RULES + "test_o6_the_latest_selection_wins",
    ),
    Mutation(
        "O6", "a person's edit of an answer is a turn of its own", _ORDER,
        "    while node.frame is None and node.alternative_of is not None:", "    while False:",
        "tests/document/test_order.py::test_a_person_s_edit_of_an_answer_stands_in_its_place",
    ),
    Mutation(
        "O6", "what is said after a selection stays hidden", _CONVERSATION,
        "if replaces_shown and entry not in self._doc.order.now().visible:", "if False:",
        _RULES + "test_o6_what_is_said_in_the_place_of_something_shown_is_shown",
    ),
    Mutation(
        "O7", "a merge brings erased words back", _CONVERSATION,
        "        if dirty:\n            with self._editing() as edit:\n                clean(",
        "        if False:\n            with self._editing() as edit:\n                clean(",
        _ERASE + "test_what_was_written_beside_an_erase_goes_again",
    ),
    Mutation(
        "O7", "words in an update that waited are kept", _CONVERSATION,
        "if dirty or self._stale_bytes or", "if dirty or",
        _RULES + "test_o7_words_in_an_update_that_waits_go_when_it_need_not_wait_any_more",
    ),
    Mutation(
        "O7", "old bytes that came with what the document had are kept", "llmcrdt/document/document.py",
        "self._append(applied.update, applied.touched)", "self._append(update, applied.touched)",
        _RULES + "test_o7_words_that_arrive_again_after_their_erase_are_in_no_file",
    ),
    Mutation(
        "O7", "hidden fields stay", _ERASING,
        'CONTENT = ("version:", "live:", "hidden:")', 'CONTENT = ("version:", "live:")',
        _RULES + "test_o7_words_that_arrive_after_their_erase_are_in_no_file",
    ),
    Mutation(
        "O7", "token logs on frames that held it stay", _ERASING,
        "        if not held <= _known_erased(doc.readable[entry]):\n            edit.delete_field",
        "        if False:\n            edit.delete_field",
        _ERASE + "test_the_words_are_in_no_file_and_the_place_stays",
    ),
    Mutation(
        "O7", "an erase takes another one's mark away", _ERASING,
        "if mark in (replica.node(schema.ENTRIES, entry) or ()):", "if False:",
        _RULES + "test_o7_an_erase_is_written_once",
    ),
    Mutation(
        "O8", "a call without a result stays without one", _MESSAGES,
        "        for entry, call in self._open:\n", "        for entry, call in ():\n",
        _RENDER + "test_every_call_has_exactly_one_result_right_after_it",
    ),
    Mutation(
        "O8", "a late result takes the synthetic one's place", _MESSAGES,
        "        if entry.answers not in self._open:\n            self._late.append(entry)\n            return\n",
        "        if entry.answers not in self._open:\n            return\n",
        _RENDER + "test_late_and_second_results_become_items_of_their_own",
    ),
    Mutation(
        "O9", "the stopped version is shown before the complete one", _SCHEMA,
        'rank = {"complete": 0, "stopped": 1, "failed": 2}', 'rank = {"complete": 1, "stopped": 0, "failed": 2}',
        _TALK + "test_a_crashed_stream_is_sealed_by_another_device_and_the_writer_may_still_come_back",
    ),
    Mutation(
        "O9", "the live text stays beside the seal", _CONVERSATION,
        '                if field.startswith("live:"):', "                if False:",
        _TALK + "test_a_stream_grows_elsewhere_and_is_sealed_once",
    ),
    Mutation(
        "O10", "a summary hides nothing from prompts", _MESSAGES,
        "    by_covered = {covered: summary for summary, ids in printed.items() for covered in ids}",
        "    by_covered: dict[EntryId, EntryId] = {}",
        "tests/document/test_summary.py::test_prompts_hold_the_summary_and_the_transcript_holds_everything",
    ),
    Mutation(
        "O10", "a summary covers what it never saw", _ORDER,
        "if node.covers and not _follows(node, sound, [entry for entry, _ in node.covers.pins]):", "if False:",
        _RULES + "test_o10_a_summary_covers_only_what_it_follows",
    ),
)  # fmt: skip
