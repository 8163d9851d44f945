"""Ways to break each rule of docs/semantics.md in the code, and the test that must notice. Run by ``mutate.py``.

A mutation replaces ``old`` by ``new`` in the definition ``target``, which holds ``old`` exactly once
(see ``anchors.py``). ``test`` is what pytest is given.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """One way to break one rule. ``name`` is how docs/semantics.md speaks of it."""

    rule: str
    name: str
    target: str
    old: str
    new: str
    test: str


_MODEL = "tests/document/test_order.py"
_RULES = "tests/document/test_rules.py::"
_TALK = "tests/document/test_conversation.py::"
_ERASE = "tests/document/test_erasure.py::"
_AUTOMERGE = "tests/repo/test_erase_in_automerge.py::"
_RENDER = "tests/prompt/test_messages.py::"
_ACTS = "tests/document/test_acts.py::"
_ASKS = "tests/document/test_asks.py::"
_EXPORT = "tests/interop/test_export.py::"

MUTATIONS = (
    Mutation(
        "O1", "entries of one lamport stand as they came", "Node.age",
        "(self.lamport, self.id)", '(self.lamport, "")', _MODEL,
    ),
    Mutation(
        "O1", "an entry may be as old as what it refers to", "fault",
        "above >= node.lamport", "above > node.lamport", _RULES + "test_o1_an_entry_stands_after_what_it_refers_to",
    ),
    Mutation(
        "O1", "a missing reference is no fault", "fault",
        'return f"refers to {reference}, which is missing or malformed"', "continue", _MODEL,
    ),
    Mutation(
        "O1", "an entry may replace one that it follows", "fault",
        "if target and target in ancestors(node, sound, sound[target].lamport):", "if False:",
        _RULES + "test_o1_nothing_stands_in_the_place_of_what_it_follows",
    ),
    Mutation(
        "O1", "a lamport may lie anywhere", "fault",
        "if node.lamport > above + REACH:", "if False:", _RULES + "test_o1_the_greatest_lamport_there_is_stops_nobody",
    ),
    Mutation(
        "O1", "a version shown once is shown again", "ConversationView.entry",
        "cached.hash == chosen_version(state, pin)[1]", "(pin is None or cached.hash == pin)",
        _RULES + "test_o1_the_version_shown_does_not_depend_on_what_was_shown_before",
    ),
    Mutation(
        "O1", "a version is taken at its word", "read_version",
        'need(content_hash(role, cast(str, text)) == name, "version\'s hash is not that of its content")', "pass",
        "tests/document/test_malformed_documents.py::test_verify_names_the_entry_that_was_tampered_with",
    ),
    Mutation(
        "O1", "a whole number that is written with a point is none", "whole_number",
        "int(value) if value.is_integer() else None", "None",
        _RULES + "test_o1_a_whole_number_may_be_written_with_a_point",
    ),
    Mutation(
        "O2", "the best version is shown in a frame too", "chosen_version",
        "next((v for v in state.versions if v.hash == pin), None) or ", "",
        _TALK + "test_a_frame_pins_the_version_it_saw",
    ),
    Mutation(
        "O2", "a frame's hash is not checked", "_frame_fault",
        "if frame.hash != extend_frame_hash(base.hash if base else EMPTY_FRAME, frame.pins):", "if False:",
        "tests/document/test_order.py::test_malformed_frames_take_no_part",
    ),
    Mutation(
        "O2", "a frame may hold what its entry doesn't follow", "_frame_fault",
        "if not _follows(node, sound, named):", "if False:",
        "tests/document/test_order.py::test_malformed_frames_take_no_part",
    ),
    Mutation(
        "O2", "a frame may repeat what its base holds", "_frame_fault",
        "if any(entry in appended for entry, _ in inner.pins):", "if False:",
        "tests/document/test_order.py::test_a_frame_that_repeats_what_its_base_holds_is_malformed",
    ),
    Mutation(
        "O2", "an unfinished entry goes into a frame", "Transcript._pins",
        "unsealed.add(entry.id)", 'pins.append((entry.id, ContentHash("A" * 32)))',
        _TALK + "test_an_unfinished_entry_is_in_no_frame",
    ),
    Mutation(
        "O3", "the first generation begins the transcript", "recount",
        "latest = max(", "latest = min(", _MODEL,
    ),
    Mutation(
        "O3", "new input goes into the frame of the last generation", "append_last",
        "[*now.tail, node.id]", "[node.id, *now.tail]", _MODEL,
    ),
    Mutation(
        "O3", "runs of several devices mix by age", "arrange",
        "todo += ready", "todo = sorted([*todo, *ready], key=lambda i: youth[i])",
        _RULES + "test_o3_what_each_device_said_offline_stays_together",
    ),
    Mutation(
        "O3", "what goes on from the last answer waits for older input", "arrange",
        "int(last in nodes[i].parents)", "0", _MODEL,
    ),
    Mutation(
        "O3", "a system entry waits for older input beside it", "arrange",
        "(place[i], nodes[i].system, youth[i])", "(place[i], youth[i])",
        _RULES + "test_o3_what_was_said_before_the_first_sync_stands_after_the_system_prompt",
    ),
    Mutation(
        "O3", "what a result's writer had before it counts for nothing", "arrange",
        "if not attached.isdisjoint(before):", "if False:", _MODEL,
    ),
    Mutation(
        "O3", "what a frame holds stands after it once more", "recount",
        " if i not in framed", "", _MODEL,
    ),
    Mutation(
        "O3", "the settings that stand last count", "messages:settings",
        "oldest_first(entries)", "entries", _RENDER + "test_o3_stale_settings_count_for_nothing",
    ),
    Mutation(
        "O4", "what is hidden is not listed", "list_elsewhere.elsewhere",
        "ids = by_age(hidden_by, order.sound())", "ids = []",
        _TALK + "test_an_edit_shows_its_branch_and_select_brings_the_old_one_back",
    ),
    Mutation(
        "O4", "whoever hides has seen everything", "elsewhere:_unseen",
        "unseen |= left - with_ancestors(seen, sound, down_to) if left else left", "pass",
        _TALK + "test_two_devices_that_answer_at_once_lose_nothing",
    ),
    Mutation(
        "O4", "an entry is hidden by whatever was written last", "visible_nodes",
        "Hider(shown[-1], None)", "Hider(way, None)",
        _RULES + "test_o4_elsewhere_is_the_same_for_an_object_in_use_and_a_fresh_one",
    ),
    Mutation(
        "O4", "who edits an edit has not seen the first words", "elsewhere:_origins",
        "path[-1] in sound and (origin := sound[path[-1]].alternative_of)", "origin := None",
        _RULES + "test_o4_whoever_edits_an_edit_has_seen_what_that_was_made_of",
    ),
    Mutation(
        "O4", "the hash of what is elsewhere leaves out who hid it", "Transcript.elsewhere_hash",
        "e.hidden_by, ", "", _RULES + "test_o4_the_hash_of_elsewhere_covers_all_of_it",
    ),
    Mutation(
        "O6", "a selection that was written over goes on counting", "StandingActs._forget",
        "self._order.unselect(act)", "pass",
        _RULES + "test_o6_of_two_selections_under_one_key_the_one_that_stands_there_counts",
    ),
    Mutation(
        "O5", "results stand where their age puts them", "arrange",
        "if call is not None and call in here:", "if False:",
        _TALK + "test_tool_results_stand_after_their_call_before_other_input",
    ),
    Mutation(
        "O5", "a result stands on the tips, and not on its call", "EntryWriter._head",
        "answers[:1] if answers else tips", "tips",
        _RULES + "test_o5_a_result_stands_where_its_call_does",
    ),
    Mutation(
        "O5", "a result is shown where its parents are", "Node.stands_on",
        "if self.answers:", "if False:",
        _RULES + "test_o5_a_result_that_an_older_writer_put_on_another_branch_is_with_its_call",
    ),
    Mutation(
        "O5", "an answer needs nothing of its frame but its parents", "Node.stands_on",
        "if self.frame:", "if False:", _MODEL,
    ),
    Mutation(
        "O5", "results of the last generation's calls wait for the others", "arrange",
        "block += reversed(results[i])",
        "(todo if i == last else block).extend(reversed(results[i]))", _MODEL,
    ),
    Mutation(
        "O6", "the branch begun last is shown, not the one written on last", "visible_nodes",
        "hit := (on | bits.get(i, 0))", "hit := bits.get(i, 0)",
        _RULES + "test_o6_a_stale_edit_does_not_hide_a_branch_that_lives",
    ),
    Mutation(
        "O6", "a late result shows its branch", "visible_nodes",
        "0 if node.answers else above[i]", "above[i]",
        _RULES + "test_o5_a_result_stands_where_its_call_does",
    ),
    Mutation(
        "O6", "an edit of a system entry hides what follows it", "visible_nodes",
        "0 if sound[parent].system else bits.get(parent, 0)", "bits.get(parent, 0)",
        _RULES + "test_o6_to_edit_a_system_entry_hides_nothing_but_it",
    ),
    Mutation(
        "O6", "a system entry that was used goes when it is edited", "visible_nodes",
        "if sound[i].frame and hidden_by", "if False",
        _RULES + "test_o6_an_edit_of_a_system_entry_that_was_used_counts_from_there_on",
    ),
    Mutation(
        "O6", "to edit a system entry brings old settings back", "EntryWriter._settings_that_count",
        'if entry.role == "system" else set()', "if False else set()",
        _RULES + "test_o6_an_edit_of_a_system_entry_that_was_used_counts_from_there_on",
    ),
    Mutation(
        "O6", "a selection counts for nothing", "visible_nodes",
        "chosen[act.group] = act", "pass",
        _TALK + "test_an_edit_shows_its_branch_and_select_brings_the_old_one_back",
    ),
    Mutation(
        "O6", "a selection rules out what is said later as well", "visible_nodes",
        "sound[m].lamport <= act.lamport and not leads_to", "not leads_to",
        _RULES + "test_o6_a_stale_edit_hides_no_living_branch_where_somebody_has_chosen",
    ),
    Mutation(
        "O6", "what was chosen against comes back when it is written on", "visible_nodes",
        "not leads_to & bits[m]:", "not leads_to & bits[m] and not any(above[i] & bits[m] for i in sound):",
        _RULES + "test_o6_what_was_chosen_against_stays_hidden_when_it_is_written_on",
    ),
    Mutation(
        "O6", "a selection is no sign of life", "visible_nodes",
        "sound[way].lamport <= chosen[group].lamport", "False",
        "tests/document/test_order.py::test_what_is_selected_is_shown_whatever_a_stranger_made_it_follow",
    ),
    Mutation(
        "O6", "rival answers hide each other", "visible_nodes",
        "sound[m].alternative_of is None and m not in replaced", "False",
        _RULES + "test_o6_rival_answers_that_were_written_on_all_stay",
    ),
    Mutation(
        "O6", "the first selection wins", "visible_nodes",
        "> (best.lamport", "< (best.lamport", _RULES + "test_o6_the_latest_selection_wins",
    ),
    Mutation(
        "O6", "a person's edit of an answer is a turn of its own", "_generation",
        "while node.frame is None and node.alternative_of is not None:", "while False:",
        "tests/document/test_order.py::test_a_person_s_edit_of_an_answer_stands_in_its_place",
    ),
    Mutation(
        "O6", "answers to one ask on two lists are two turns", "group_of",
        "if named != own and", "if False and",
        _ASKS + "test_two_answers_on_two_lists_are_alternatives",
    ),
    Mutation(
        "O6", "answers to a second ask on one list are turns of their own lists", "turn_of",
        "any(view.order.group(entry) == turn for entry in computed_on)", "False",
        _ASKS + "test_two_answers_to_a_second_ask_on_one_list_are_alternatives",
    ),
    Mutation(
        "asks", "a claim that the relay's order refused is granted", "OwnClaim.decide",
        "self._first.set_result(self._claim.is_granted(self._rivals()))", "self._first.set_result(True)",
        "tests/sim/test_schedules.py::test_every_ask_ends_once_over_seeded_schedules",
    ),
    Mutation(
        "O6", "an answer takes the place of one that it was computed on", "group_of",
        "not _holds_any(_generation(node, nodes).frame, groups.get(named, ()), nodes)", "True",
        "tests/document/test_order.py",
    ),
    Mutation(
        "O6", "a file forgets the turn that an answer stands for", "write_node",
        "rare += [node.turn] if node.turn else []", "pass",
        _ASKS + "test_a_repo_that_is_opened_again_knows_which_turn_an_answer_stands_for",
    ),
    Mutation(
        "O6", "an adopted answer stands for the turn of its own list", "_Moving._head",
        "turn=entry.group if frame and entry.group in self._turns else None", "turn=None",
        "tests/document/test_adopt.py::test_answers_to_a_fork_s_ask_stand_for_one_turn_where_it_is_adopted",
    ),
    Mutation(
        "O6", "what is said after a selection stays hidden", "EntryWriter._put",
        "if replaces_shown and entry not in core.view.order.now().visible:", "if False:",
        _RULES + "test_o6_what_is_said_in_the_place_of_something_shown_is_shown_where_lamports_end",
    ),
    Mutation(
        "O7", "a merge brings erased words back", "ConversationCore.merged",
        "if dirty:", "if False:", _ERASE + "test_what_was_written_beside_an_erase_goes_again",
    ),
    Mutation(
        "O7", "words in an update that waited are kept", "ConversationCore.merged",
        "self.stale_bytes or ", "", _RULES + "test_o7_words_in_an_update_that_waits_go_when_it_need_not_wait_any_more",
    ),
    Mutation(
        "O7", "old bytes that came with what the document had are kept", "Document.apply",
        "self._append(applied.update", "self._append(update",
        _RULES + "test_o7_words_that_arrive_again_after_their_erase_are_in_no_file",
    ),
    Mutation(
        "O7", "hidden fields stay", "CONTENT",
        ', "hidden:"', "", _RULES + "test_o7_words_that_arrive_after_their_erase_are_in_no_file",
    ),
    Mutation(
        "O7", "token logs on frames that held it stay", "erasure:_clean",
        "if _tells_of(view, replica, entry, held):", "if False:",
        _ERASE + "test_the_words_are_in_no_file_and_the_place_stays",
    ),
    Mutation(
        "O7", "an Automerge history is not written anew", "Core.erase",
        "if hashes:", "if False:", _AUTOMERGE + "test_a_document_as_bytes_of_before_an_erase_brings_nothing_back",
    ),
    Mutation(
        "O7", "a text that stood in an erased field stays in an Automerge history", "Erasures._erases",
        "if action in (MAP, LIST, TEXT):", "if False:",
        _AUTOMERGE + "test_no_history_holds_the_words_and_what_was_said_meanwhile_stays",
    ),
    Mutation(
        "O7", "a change doesn't say which one it comes after, and waits for ever", "History.tell_names",
        "self._names.get(dep) or self.older.get(dep) or ", "",
        _AUTOMERGE + "test_no_history_holds_the_words_and_what_was_said_meanwhile_stays",
    ),
    Mutation(
        "O7", "words that a plain client only deleted stay in an Automerge history", "_has_words",
        " or replica.keeps_deleted(schema.ENTRIES, entry, CONTENT)", "",
        _AUTOMERGE + "test_the_erase_of_somebody_who_only_deletes_is_completed",
    ),
    Mutation(
        "O7", "an erase takes another one's mark away", "erasure:erase",
        "if mark in (replica.node(schema.ENTRIES, entry) or ()):", "if False:",
        _RULES + "test_o7_an_erase_is_written_once",
    ),
    Mutation(
        "O8", "a call without a result stays without one", "_made_up",
        "for call in calls", "for call in ()",
        _RENDER + "test_every_call_has_exactly_one_result_right_after_it",
    ),
    Mutation(
        "O8", "a late result takes the synthetic one's place", "with_results",
        "late.append(Late(entry, known.get(entry.answers) if entry.answers else None))", "pass",
        _RENDER + "test_late_and_second_results_become_items_of_their_own",
    ),
    Mutation(
        "O8", "an export has a call that nobody can run", "_is_usable",
        "bool(id_and_name(call)[1])", "True",
        _EXPORT + "test_half_a_call_of_a_stream_that_crashed_is_left_out",
    ),
    Mutation(
        "O8", "two calls of one exported message share an id", "sent_calls",
        "if not name or name in taken:", "if not name:",
        _EXPORT + "test_calls_of_one_message_have_ids_of_their_own",
    ),
    Mutation(
        "O9", "the stopped version is shown before the complete one", "versions_of",
        '"complete": 0, "stopped": 1', '"complete": 1, "stopped": 0',
        _TALK + "test_a_crashed_stream_is_sealed_by_another_device_and_the_writer_may_still_come_back",
    ),
    Mutation(
        "O9", "the live text stays beside the seal", "EntryWriter._write_version",
        'if field.startswith("live:"):', "if False:", _TALK + "test_a_stream_grows_elsewhere_and_is_sealed_once",
    ),
    Mutation(
        "O10", "a summary hides nothing from prompts", "with_summaries",
        "by_covered = {covered: summary for summary, ids in printed.items() for covered in ids}",
        "by_covered: dict[EntryId, EntryId] = {}",
        "tests/document/test_summary.py::test_prompts_hold_the_summary_and_the_transcript_holds_everything",
    ),
    Mutation(
        "O10", "an edit of a summary covers nothing", "EntryWriter._head",
        "covers=old.covers if old else None,", "",
        "tests/document/test_summary.py::test_a_summary_in_other_words_covers_what_it_covered",
    ),
    Mutation(
        "O10", "a summary covers what it never saw", "fault",
        "if node.covers and not _follows(node, sound, [entry for entry, _ in node.covers.pins]):", "if False:",
        _RULES + "test_o10_a_summary_covers_only_what_it_follows",
    ),
    Mutation(
        "O7", "an erase takes along what only contains the words", "with_copies",
        "any(parts in said for parts in _contents(view.states[i]))",
        "any(w in o for w in _words(view.states[entry]) for o in _words(view.states[i]))",
        _ERASE + "test_a_short_answer_takes_no_other_one_along",
    ),
    Mutation(
        "O7", "alternatives of the same content stay", "with_copies",
        "return {entry, *(i for i in members if any(parts in said for parts in _contents(view.states[i])))}",
        "return {entry}",
        _ERASE + "test_what_only_contains_the_words_stays_and_is_listed",
    ),
    Mutation(
        "O7", "an edit beside an erase is shown", "withheld_edits",
        "for i, node in sound.items() if erases else ():",
        "for i, node in ():",
        "tests/document/test_withheld.py::test_o7_an_edit_beside_an_erase_is_withheld_until_somebody_keeps_it",
    ),
    Mutation(
        "O7", "an edit that whoever erased had seen is withheld", "Erase.knew",
        "return node.id in self.seen",
        "return False",
        "tests/document/test_withheld.py::test_o7_what_whoever_erased_had_seen_is_not_withheld",
    ),
    Mutation(
        "O7", "an author's knowledge of an erase counts for nothing", "withheld_edits",
        "erased not in node.saw_erased and ",
        "",
        "tests/document/test_withheld.py::test_o7_what_whoever_erased_had_seen_is_not_withheld",
    ),
    Mutation(
        "O7", "an edit of an edit is shown beside an erase", "withheld_edits",
        " + made_of.get(origin, ())",
        "",
        "tests/document/test_withheld.py::test_o7_an_edit_of_an_edit_is_withheld_as_well",
    ),
    Mutation(
        "O7", "entries after a withheld one are shown", "after_withheld",
        "[i for i in node.stands_on if i in dark]",
        "[]",
        "tests/document/test_withheld.py::test_o7_an_edit_beside_an_erase_is_withheld_until_somebody_keeps_it",
    ),
    Mutation(
        "O7", "a withheld entry goes on to decide between branches above it", "WaistSearch.find",
        "decided = not concerned",
        "decided = True",
        "tests/document/test_withheld.py::test_o7_a_branch_lives_no_longer_through_what_an_erase_withholds",
    ),
    Mutation(
        "O7", "an edit whose own erase is taken away goes on to be shown", "Order.erase",
        " or let_go",
        "",
        "tests/document/test_withheld.py::test_o7_an_edit_whose_own_erase_a_stranger_takes_away_is_withheld_again",
    ),
    Mutation(
        "O7", "to erase once more lets go what is withheld", "Order.made_of",
        " - self._now.withheld.keys()",
        "",
        "tests/document/test_withheld.py::test_o7_to_erase_once_more_brings_nothing_back",
    ),
    Mutation(
        "O7", "an erase of before withholds what it had seen", "Erase.knew",
        "node.lamport < self.lamport or node.session == self.session",
        "False",
        "tests/document/test_withheld.py::test_o7_a_mark_that_does_not_say_what_was_seen_withholds_what_may_be_beside_it",
    ),
    Mutation(
        "O7", "an erase of before withholds nothing", "Erase.knew",
        "node.lamport < self.lamport or node.session == self.session",
        "True",
        "tests/document/test_withheld.py::test_o7_a_mark_that_does_not_say_what_was_seen_withholds_what_may_be_beside_it",
    ),
    Mutation(
        "O7", "to keep a withheld edit changes nothing", "withheld_edits",
        "if i not in kept and i not in erases else",
        "if i not in erases else",
        "tests/document/test_withheld.py::test_o7_an_edit_beside_an_erase_is_withheld_until_somebody_keeps_it",
    ),
    Mutation(
        "O7", "an edit that is erased as well stays withheld", "withheld_edits",
        "if i not in kept and i not in erases else",
        "if i not in kept else",
        "tests/document/test_withheld.py::test_o7_to_erase_once_more_brings_nothing_back",
    ),
    Mutation(
        "O7", "an entry that becomes withheld is found by its words", "Projector._since",
        " | (self._withheld ^ withheld_of(now))",
        "",
        "tests/document/test_withheld.py::test_o7_an_edit_beside_an_erase_is_withheld_until_somebody_keeps_it",
    ),
    Mutation(
        "O7", "rows that another process wrote are taken for one's own", "StoreJournal._write_rows",
        "if trusted and made_of == self._base", "if trusted",
        "tests/store/test_entry_index.py::test_rows_that_another_process_wrote_are_each_looked_at",
    ),
    Mutation(
        "O7", "a withheld entry is found by its words", "row_of",
        "searchable_text(state, pin) if findable else None",
        "searchable_text(state, pin)",
        "tests/document/test_withheld.py::test_o7_an_edit_that_comes_a_year_after_the_erase_is_withheld",
    ),
    Mutation(
        "O7", "a fork forgets which edits were kept", "copy_acts",
        "(Selection, Keep)",
        "Selection",
        "tests/document/test_withheld.py::test_o7_a_fork_withholds_the_same",
    ),
    Mutation(
        "O7", "a fork is merged back", "check_identity",
        "if other is not None:",
        "if False:",
        "tests/document/test_fork.py::test_a_fork_is_not_merged_back",
    ),
    Mutation(
        "O7", "a relay's record of another document is taken", "SyncSource.received",
        "check_identity(document, update, crdt.foreign_key)",
        "",
        "tests/document/test_fork.py::test_a_fork_that_a_relay_has_under_another_id_is_set_aside_and_told",
    ),
    Mutation(
        "O7", "a stranger's other identity stops a conversation", "foreign_key",
        "if parent + _text(own) in data or not re.search",
        "if not re.search",
        "tests/document/test_fork.py::test_nobody_makes_a_conversation_refuse_its_own_updates",
    ),
    Mutation(
        "O7", "an alternative doesn't say which erases its author knew", "EntryWriter._seen_erased",
        "view.order.erased_origins(instead)", "()",
        "tests/document/test_withheld.py::test_o7_what_whoever_erased_had_seen_is_not_withheld",
    ),
    Mutation(
        "O7", "a selection shows a withheld entry", "ActWriter.select",
        "view.check_not_withheld(chosen)",
        "",
        "tests/document/test_withheld.py::test_o7_an_edit_beside_an_erase_is_withheld_until_somebody_keeps_it",
    ),
    Mutation(
        "O1", "half of an emoji is carried on", "parse_json",
        "text = _ESCAPE.sub(_whole_escape, text)",
        "pass",
        "tests/document/test_malformed_documents.py::test_half_an_emoji_is_read_and_stops_nothing",
    ),
    Mutation(
        "O1", "a number beyond any double is infinite", "number_of",
        "number = math.copysign(sys.float_info.max, number)",
        "pass",
        "tests/document/test_malformed_documents.py::test_a_number_that_no_double_holds_is_read_as_the_greatest",
    ),
    Mutation(
        "O1", "whole numbers have as many digits as Python takes", "parse_json",
        "_DECODER if odd else _SHORT_DECODER",
        "_SHORT_DECODER",
        "tests/document/test_malformed_documents.py::test_a_number_that_no_double_holds_is_read_as_the_greatest",
    ),
    Mutation(
        "O2", "an adopted frame keeps the hash that it had in the fork", "_Moving._frame",
        "extend_frame_hash(before, moved.pins)",
        "frame.hash",
        "tests/document/test_adopt.py::test_two_devices_adopt_a_fork_in_whatever_order",
    ),
    Mutation(
        "O7", "an erase in a fork stays behind when the fork is adopted", "_Moving._values",
        'elif kind == "erased":',
        'elif kind == "never":',
        "tests/document/test_adopt.py::test_what_was_erased_does_not_come_back_by_adopting",
    ),
    Mutation(
        "O7", "an encrypted field stays behind when a fork is adopted", "_Moving._hidden",
        "yield name, field.encrypted_alike(address)",
        "pass",
        "tests/document/test_adopt.py::test_an_encrypted_field_comes_with_its_key",
    ),
    Mutation(
        "O1", "an imported entry depends on the device", "ImportChain.__init__",
        '_session("llmcrdt/import/session/1", conversation)',
        '_session("llmcrdt/import/session/1", DocumentId(str(id(self))))',
        "tests/repo/test_import.py::test_two_devices_that_import_one_file_have_one_conversation",
    ),
    Mutation(
        "O6", "a changed message of an import stands beside the old one", "_Places.choose",
        "entry = make(replaced=replaced, instead_of=node)",
        "pass",
        "tests/repo/test_import.py::test_a_changed_export_adds_alternatives",
    ),
    Mutation(
        "O1", "nesting ends where the stack does", "_check_depth",
        "if depth > MAX_DEPTH:",
        "if False:",
        "tests/document/test_malformed_documents.py::test_nesting_has_one_limit_whatever_the_stack",
    ),
    Mutation(
        "O1", "a time may be any number", "read_head",
        "fits = created_at is not None and abs(created_at) <= TIMES_END",
        "fits = created_at is not None",
        "tests/document/test_malformed_documents.py::test_a_time_that_no_date_holds_makes_its_entry_malformed",
    ),
    Mutation(
        "O1", "live parts of one number stand as they come", "live_parts",
        "sorted(live)",
        "live",
        "tests/document/test_malformed_documents.py::test_live_parts_of_one_number_stand_by_their_names",
    ),
    Mutation(
        "O1", "a field's name has a length", "_LENGTHS",
        ">IBI",
        ">HBI",
        "tests/document/test_malformed_documents.py::test_a_field_name_of_any_length_stops_nothing",
    ),
    Mutation(
        "O7", "a fork forgets odd erase marks", "fork:_copied",
        "if name.startswith(\"erased:\"):",
        "if False:",
        "tests/document/test_malformed_documents.py::test_an_erase_is_one_whatever_it_holds",
    ),
    Mutation(
        "O7", "a token log that comes before the answer it was computed on stays", "is_clean",
        "view.read_since_clean.update(i for i in read if i not in sound)", "pass",
        _ERASE + "test_a_token_log_goes_in_whatever_order_it_comes",
    ),
    Mutation(
        "O7", "words that were taken out of the index stay in its pages", "_unindex",
        "_note_removed(db)", "pass",
        "tests/store/test_word_index.py::test_no_word_that_was_taken_out_stays_in_the_file",
    ),
    Mutation(
        "O2", "a fork has the words of a version that a later frame pins", "_copy_rows",
        "copies[each].whole and not moved", "copies[each].whole",
        "tests/document/test_fork.py::"
        "test_a_fork_at_an_entry_with_two_versions_has_the_words_of_its_own_one_in_the_tables",
    ),
    Mutation(
        "claims", "whoever claims last is granted", "Claim.is_granted",
        "all(map(self.takes_over, before))", "True", _ACTS + "test_in_a_log_one_session_at_most_holds_a_call",
    ),
    Mutation(
        "claims", "to take over one claim is enough", "Claim.is_granted",
        "all(map(self.takes_over, before))", "not (here := list(before)) or any(map(self.takes_over, here))",
        _ACTS + "test_in_a_log_one_session_at_most_holds_a_call",
    ),
    Mutation(
        "claims", "a session that was taken over never claims anew", "Claim.takes_over",
        "(other.session, other.lamport) in self.abandoned", "other.session in dict(self.abandoned)",
        _ACTS + "test_a_claim_of_a_dead_session_is_taken_over_by_one",
    ),
    Mutation(
        "claims", "whoever lost goes on", "ToolClaim.granted",
        "granted and not self._is_taken_over()", "granted",
        _ACTS + "test_a_claim_of_a_dead_session_is_taken_over_by_one",
    ),
    Mutation(
        "claims", "a claim that was written over goes on counting", "StandingActs._forget",
        "del self.claims[act.call][act.session]", "pass", _ACTS + "test_a_claim_that_was_written_over_is_none",
    ),
    Mutation(
        "asks", "the youngest under an id counts", "question_of",
        "min(found", "max(found", _ASKS + "test_a_stranger_under_the_same_id_changes_nothing_for_the_older_ask",
    ),
    Mutation(
        "asks", "an ask counts whatever became of its frame", "still_counts",
        "== question.frame", "is not None", _ASKS + "test_an_ask_counts_no_more_when_something_before_its_tips_changes",
    ),
    Mutation(
        "asks", "a worker that gave an ask back is at work on it", "status_of",
        "each.lamport > replied.get(each.session, 0)", "True",
        _ASKS + "test_an_ask_that_is_handed_over_waits_again_for_another_worker",
    ),
    Mutation(
        "asks", "an ask that was taken back waits on", "status_of",
        "ask in view.acts.stops or", "False or", _ASKS + "test_an_ask_is_taken_back_and_its_answer_stopped",
    ),
    Mutation(
        "asks", "a worker whose claim was not granted answers all the same", "Job._answer",
        "if not claim.granted(_GRANT, offline=True):", "if False:",
        "tests/serve/test_worker.py::test_a_claim_that_is_not_granted_answers_nothing",
    ),
    Mutation(
        "asks", "a worker takes over from the living", "Worker._consider",
        "now - tracked.alive_at > self._patience", "True",
        "tests/serve/test_worker.py::test_an_ask_is_not_taken_over_while_its_holder_may_live",
    ),
    Mutation(
        "asks", "words and ask are two updates", "Conversation.ask",
        "with self._core.editing():", "if True:",
        _ASKS + "test_an_ask_that_is_none_is_refused_and_nothing_is_written",
    ),
    Mutation(
        "asks", "one asker goes before all others", "Worker._in_turn",
        "key=lambda item: (self._order.of(item[0][0], item[1].ask.author), item[1].ask.asked_at),",
        "key=lambda item: item[1].ask.asked_at,",
        "tests/serve/test_hostile_asks.py::test_conversations_and_askers_take_turns",
    ),
    Mutation(
        "asks", "an entry that nobody ends keeps others waiting", "Leftovers.end",
        "conversation.seal(entry)", "pass",
        "tests/serve/test_hostile_asks.py::test_an_entry_that_nobody_ends_keeps_no_other_ask_waiting",
    ),
    Mutation(
        "asks", "a claim that does nothing holds for ever", "Worker._consider",
        "and now - tracked.changed_at <= UNCHANGED * self._patience", "",
        "tests/serve/test_hostile_asks.py::test_a_forged_lease_holds_nobody_up_for_ever",
    ),
    Mutation(
        "asks", "an ask whose second worker died too is never answered", "ActWriter.claim_ask",
        "idle(claim) or claim not in standing_claims(_claims(self._core, name))", "idle(claim)",
        _ASKS + "test_after_two_have_died_a_third_one_takes_the_ask_over",
    ),
    Mutation(
        "asks", "one asker takes all places of a conversation", "Worker._untracked",
        "(own >= _OF_ONE or all_ >= _TRACKED) and (own or all_ >= 2 * _TRACKED)", "all_ >= _TRACKED",
        "tests/serve/test_hostile_asks.py"
        "::test_an_asker_who_asks_a_thousand_times_keeps_no_other_asker_of_that_conversation_waiting",
    ),
    Mutation(
        "asks", "asks beyond those looked after are never looked at", "Worker._look_into",
        "self._unread.add(document)", "pass",
        "tests/serve/test_hostile_asks.py::test_thousands_at_once_keep_nobody_else_waiting",
    ),
)  # fmt: skip
