"""Ways to break what keeps strangers out of the page, and agents to what they may do."""

from __future__ import annotations

from mutations import Mutation

_APP = "tests/page/test_app.py::"
_WORDS = "tests/page/test_markdown.py"

ACCESS_MUTATIONS = (
    Mutation(
        "page",
        "a code gives a token twice",
        "Tokens.exchange",
        "if token or self._clock() >= until:",
        "if self._clock() >= until:",
        _APP + "test_a_code_gives_a_token_once_and_soon",
    ),
    Mutation(
        "page",
        "a code is good for ever",
        "Tokens.exchange",
        "self._clock() >= until",
        "code not in self._codes",
        _APP + "test_a_code_gives_a_token_once_and_soon",
    ),
    Mutation(
        "page",
        "who had a code first stays",
        "Tokens.exchange",
        "self._good.discard(token)",
        "pass",
        _APP + "test_a_code_gives_a_token_once_and_soon",
    ),
    Mutation(
        "page",
        "a request needs no token",
        "OnlyWithToken._refusal",
        'scheme.lower() != b"bearer" or not self._tokens.allows(token)',
        "not scheme",
        _APP + "test_a_request_needs_the_token_the_host_and_its_own_origin",
    ),
    Mutation(
        "page",
        "any name of this machine will do",
        "OnlyWithToken._refusal",
        'if headers.get(b"host") not in self._hosts:',
        "if False:",
        _APP + "test_a_request_needs_the_token_the_host_and_its_own_origin",
    ),
    Mutation(
        "page",
        "other pages may ask",
        "OnlyWithToken._refusal",
        "not in self._origins",
        "in ()",
        _APP + "test_a_request_needs_the_token_the_host_and_its_own_origin",
    ),
    Mutation(
        "page",
        "raw HTML is HTML",
        "_parser",
        '{"html": False}',
        '{"html": True}',
        _WORDS + "::test_html_in_a_models_words_is_shown_as_text",
    ),
    Mutation(
        "page",
        "any attribute comes out",
        "to_html",
        '"*": set(), ',
        '"*": {"title"}, ',
        _WORDS,
    ),
    Mutation(
        "page",
        "a picture is loaded",
        "_Renderer.image",
        "f'<a href=",
        "'' and f'<a href=",
        _WORDS + "::test_a_picture_is_a_link_for_to_load_it_would_tell_who_reads",
    ),
    Mutation(
        "page",
        "an SVG is shown",
        "PageApp._blob",
        "media_type in PICTURES",
        "True",
        _APP + "test_an_attachment_is_sent_and_shown_as_what_it_is",
    ),
    Mutation(
        "agents",
        "an agent writes anywhere",
        "llmcrdt.mcp.library:AgentLibrary._check",
        "if ALL not in",
        "if False and ALL not in",
        "tests/mcp/test_server.py::test_it_writes_only_where_a_person_allowed_it",
    ),
    Mutation(
        "agents",
        "an agent reads what is not shown",
        "llmcrdt.mcp.library:AgentLibrary.entry",
        "if shown.id not in set(found.transcript().ids):",
        "if False:",
        "tests/mcp/test_server.py::test_hidden_fields_reasoning_and_erased_words_are_never_told",
    ),
)
