"""Ways to break what docs/hidden-state.md promises in the code, and the test that must notice each."""

from __future__ import annotations

from mutations import Mutation

_BIND = "tests/document/test_binding.py::"
_STATE = "tests/document/test_hidden_state.py::"
_SEAL = "tests/document/test_encryption.py::"
_SURFACES = "tests/document/test_hidden_surfaces.py::"
_PROVIDERS = "tests/providers/test_providers.py::"

HIDDEN_MUTATIONS = (
    Mutation(
        "H", "a second clear value is taken for the first", "_held_against",
        'if not came_with:\n    return RefusedField(stored, "replaced")', "came_with = came_with or ()",
        _STATE + "test_a_second_value_is_refused_and_named",
    ),
    Mutation(
        "H", "a clear value over an encrypted one is taken where the key is missing", "_held_against",
        "digests.get(_clear_digest(name, stored))", "next(iter(digests.values()))",
        _STATE + "test_a_device_without_the_key_tells_a_clear_value_over_a_sealed_one",
    ),
    Mutation(
        "H", "whoever has the key may encrypt another value", "EncryptedField._read",
        "if self._vouched and self._digest(opened) not in self._vouched:", "if False:",
        _STATE + "test_a_second_value_is_refused_and_named",
    ),
    Mutation(
        "H", "a field that is added later counts", "_held_against",
        'return RefusedField(stored, "added")', "return field",
        _STATE + "test_a_field_that_is_added_to_a_generation_is_refused",
    ),
    Mutation(
        "H", "a version that says nothing makes room for an added field", "_held_against",
        "replace(field, versions=silent)", "field",
        _STATE + "test_a_version_that_says_nothing_makes_no_room_for_a_field",
    ),
    Mutation(
        "H", "verify is content with a field of another version", "_hidden_problems",
        "elif field and field.versions and version.hash not in field.versions:", "elif False:",
        _STATE + "test_a_version_that_vouches_for_another_value_is_named",
    ),
    Mutation(
        "H", "verify names no field that was replaced", "_try_to_open",
        "if field.sealed or field.refused:", "if field.sealed:", _STATE + "test_a_second_value_is_refused_and_named",
    ),
    Mutation(
        "H", "a field that is gone is no problem", "_hidden_problems",
        "if field is None and name not in excused:", "if False:", _STATE + "test_a_field_that_is_taken_away_is_named",
    ),
    Mutation(
        "H", "a version vouches for no field", "EntryWriter._write_version",
        "self._digests(entry, hidden or {}) if says else None", "None",
        _STATE + "test_two_seals_never_swap_their_fields",
    ),
    Mutation(
        "H", "two seals swap their fields", "_held_against",
        "(*digests.get(digest, ()), version.hash)", "tuple(v.hash for v in versions)",
        _STATE + "test_two_seals_never_swap_their_fields",
    ),
    Mutation(
        "H", "a field of another version goes out", "_why_not",
        "(field.versions and entry.hash not in field.versions) or ", "",
        _BIND + "test_a_field_of_another_version_does_not_go_out",
    ),
    Mutation(
        "H", "a refused field goes out", "_why_not",
        "if field.refused or field.locked:", "if field.sealed and field.locked:",
        _STATE + "test_a_forged_field_is_sent_to_nobody",
    ),
    Mutation(
        "H", "a field goes to every provider", "_why_not",
        'if not _fits(binding.get("provider", name.partition("/")[0] if "/" in name else None), target.provider):',
        "if False:", _BIND + "test_going_back_to_the_first_provider_brings_its_fields_back",
    ),
    Mutation(
        "H", "a field goes to every account", "_why_not",
        "sorted(binding.keys() - _OWN_KEYS)", 'sorted(binding.keys() - {*_OWN_KEYS, "account"})',
        _BIND + "test_a_field_for_another_account_or_model_stays_and_comes_back",
    ),
    Mutation(
        "H", "a target that says nothing of a key is the right one", "binding:_fits",
        "value is not None and (", "value is None or (",
        _BIND + "test_a_target_that_says_nothing_of_a_key_is_another_one",
    ),
    Mutation(
        "H", "a field that has expired goes out", "_why_not",
        "now >= expires", "False", _BIND + "test_a_field_expires_by_the_time_that_is_given_and_by_the_clock",
    ),
    Mutation(
        "H", "a field holds one moment too long", "_why_not",
        "now >= expires", "now > expires", _BIND + "test_a_field_expires_by_the_time_that_is_given_and_by_the_clock",
    ),
    Mutation(
        "H", "an erase in the frame changes nothing", "_why_not",
        "if erased:", "if False:",
        _BIND + "test_an_erase_in_the_frame_ends_every_field_computed_on_it_but_not_what_came_after",
    ),
    Mutation(
        "H", "an erase ends what was computed after it", "EntryWriter._seen_erased",
        "{*frame.erased} if frame is not None else set()", "set()",
        _BIND + "test_an_erase_in_the_frame_ends_every_field_computed_on_it_but_not_what_came_after",
    ),
    Mutation(
        "H", "an erase counts as known that came while the provider answered", "EntryWriter._seen_erased",
        "{*frame.erased} if frame is not None else set()", "set(view.erased) if pinned else set()",
        _BIND + "test_an_erase_while_the_provider_answers_is_not_taken_for_known",
    ),
    Mutation(
        "H", "a field goes out on another list than its frame", "_why_not",
        "frame != standing.before", "False",
        _BIND + "test_a_merge_that_leaves_the_frame_is_told_by_the_entry_that_came_between_and_undone",
    ),
    Mutation(
        "H", "the report names the wrong entry", "_parted_by",
        "if same < len(now) and (same == len(then) or now[same][0] not in {i for i, _ in then[same + 1 :]}):",
        "if same > len(now):",
        _BIND + "test_a_merge_that_leaves_the_frame_is_told_by_the_entry_that_came_between_and_undone",
    ),
    Mutation(
        "H", "an edit takes the fields of the old words along", "EntryWriter.edit",
        "answers=old.answers), parts, {})", "answers=old.answers), parts, old.hidden)",
        _BIND + "test_an_edit_in_the_frame_takes_the_field_out_until_the_old_words_are_shown_again",
    ),
    Mutation(
        "H", "fields of entries that are not shown are not reported", "report",
        "for entry, by in elsewhere:", "for entry, by in ():",
        _BIND + "test_an_edit_in_the_frame_takes_the_field_out_until_the_old_words_are_shown_again",
    ),
    Mutation(
        "H", "a summary leaves the list before an entry as it was", "_why_not",
        "frame is not None and standing.summary", "False",
        _BIND + "test_a_summary_ends_what_holds_on_the_list_before_it",
    ),
    Mutation(
        "H", "half of a group goes out", "_whole_groups",
        "if lacking or not whole:", "if not whole:", _BIND + "test_a_group_goes_out_whole_or_not_at_all",
    ),
    Mutation(
        "H", "a group goes out although nobody can tell that it is whole", "_whole_groups",
        "whole = not any(unknown.get(made[i].entry) for i in members)", "whole = True",
        _BIND + "test_one_who_can_t_tell_the_group_of_a_field_sends_none_of_that_entry_s_groups",
    ),
    Mutation(
        "H", "a relay reads what an encrypted field is bound to", "encrypt_field",
        'return _encrypt(random(_BLIND) + plain, address, random)',
        'return _encrypt(random(_BLIND) + plain, address, random) + plain',
        _SEAL + "test_a_field_opens_where_it_was_sealed_and_neither_content_nor_binding_is_readable_without_the_key",
    ),
    Mutation(
        "H", "a device without the newest key encrypts under another one", "ConversationCore.check_key",
        "if keys.find(self.id, newest) is None:", "if False:",
        _SEAL + "test_a_device_without_the_newest_key_says_so_before_it_seals_under_another_one",
    ),
    Mutation(
        "H", "a key made on purpose is not enough", "ConversationCore.check_key",
        " or newest == self._passed_over", "",
        _SEAL + "test_a_device_without_the_newest_key_says_so_before_it_seals_under_another_one",
    ),
    Mutation(
        "H", "a fork doesn't say what it left out", "copy_conversation",
        "view.order.sound(), left_out)", "view.order.sound(), [])",
        _SEAL + "test_a_fork_seals_anew_what_opens_here_and_leaves_out_the_rest",
    ),
    Mutation(
        "H", "a fork encrypts another field than it copies", "EncryptedField.encrypted_for",
        "_encrypt(opened.plain, address, random)", "encrypt_field(self, address, random)",
        _SEAL + "test_a_field_keeps_its_digest_in_forks_of_forks_and_a_forged_one_is_refused_there_too",
    ),
    Mutation(
        "H", "an answer in place of another says what that one was sent", "_computed",
        "hash_ = None if sent is None", "hash_ = head.frame.sent if sent is None",
        _STATE + "test_what_was_really_sent_is_recorded_for_whoever_calls_a_provider",
    ),
    Mutation(
        "H", "the page's details show what a field holds", "llmcrdt.page.views:_hidden_json",
        '"name": name,', '"name": name + str(field.data),',
        _SURFACES + "test_no_hidden_value_is_shown_by_accident",
    ),
    Mutation(
        "H", "agents hear of hidden fields", "llmcrdt.mcp.library:_said",
        "text = entry.text[start : start + LONGEST]", "text = entry.text[start : start + LONGEST] + str(entry.hidden)",
        _SURFACES + "test_no_hidden_value_is_shown_by_accident",
    ),
    Mutation(
        "H", "a provider's sealed fields are clear where it streams",
        "llmcrdt.generation.provider_answer:ProviderAnswer._ask_stream", "sealed=self._provider.sealed,", "",
        _PROVIDERS + "test_what_is_sealed_is_read_by_no_relay_and_nothing_is_sent_that_could_not_be_sealed",
    ),
    Mutation(
        "H", "an answer is paid that can't be sealed", "llmcrdt.generation.provider_answer:ProviderAnswer.compute",
        "if self._provider.sealed:", "if False:",
        _PROVIDERS + "test_what_is_sealed_is_read_by_no_relay_and_nothing_is_sent_that_could_not_be_sealed",
    ),
    Mutation(
        "H", "the note of a refusal tells relays the account", "llmcrdt.generation.provider_plan:refusal_noted",
        '"account": _account(conversation, provider)', '"account": provider.account',
        _PROVIDERS + "test_what_is_sealed_is_read_by_no_relay_and_nothing_is_sent_that_could_not_be_sealed",
    ),
    Mutation(
        "H", "a token log is used although its binding does not hold", "_bound_log",
        "if not evaluate(TOKENS, field, target, Standing(entry, before), 0.0).sent:", "if field.locked:",
        "tests/prompt/test_token_log.py::test_what_makes_a_log_invalid",
    ),
)  # fmt: skip
