"""The items of the Responses API: who makes them, and where in them opaque values stand."""

from __future__ import annotations

from ...document.canonical import JSON
from ...document.entry import Part, Role, ToolCall
from ..hiding import Place, type_of
from ..native import Native, mapping
from ..tool_names import NameForm

NATIVE = Native("openai-responses")
NAMES = NameForm()
ROLES: dict[str, Role] = {"user": "user", "system": "system", "developer": "system"}
WORDS = {"function_call": "arguments", "custom_tool_call": "input"}
RUN_BY_APP = ("computer_call", "local_shell_call", "shell_call", "apply_patch_call")
_OUTPUT = (
    "reasoning", "compaction", "mcp_list_tools", "mcp_approval_request", "program", "program_output",
    "tool_search_output",
)  # fmt: skip
INPUT = ("item_reference", "mcp_approval_response", "compaction_trigger", "configuration_update", "additional_tools")


def _is_text_or_null(value: JSON) -> bool:
    return value is None or isinstance(value, str)


PLACES = (
    Place("openai-responses/reasoning", "reasoning", ("id",)),
    Place("openai-responses/reasoning", "reasoning", ("encrypted_content",), _is_text_or_null),
    Place("openai-responses/compaction", "compaction", ("id",)),
    Place("openai-responses/compaction", "compaction", ("encrypted_content",)),
    Place("openai-responses/program", "program", ("fingerprint",)),
    Place("openai-responses/references", "item_reference", ("id",)),
)
OF_MODEL = ("openai-responses/reasoning", "openai-responses/compaction")
PIECES = ("input_text", "input_image", "input_file", "output_text")


def is_output(item: JSON, in_run: bool) -> bool:
    """Whether a model made an item. One of an unknown type belongs to what stands before it."""
    kind = type_of(item)
    if kind in ("", "message"):
        return mapping(item).get("role") == "assistant"
    if is_result(item) or kind in INPUT:
        return False
    return kind in _OUTPUT or kind.endswith("_call") or in_run


def is_result(item: JSON) -> bool:
    kind = type_of(item).removesuffix("_output")
    return type_of(item).endswith("_output") and (kind in WORDS or kind in RUN_BY_APP)


def call_of(part: Part) -> tuple[str, str, str] | None:
    """Id, name and kind of the call that a part makes, if the app is to answer it."""
    if isinstance(part, ToolCall):
        kind = NATIVE.rest_of(part).get("kind")
        return (part.id, part.name, "custom_tool_call" if kind == "custom_tool_call" else "function_call")
    block = mapping(NATIVE.block_of(part))
    if type_of(block) in RUN_BY_APP and isinstance(block.get("call_id"), str):
        return block["call_id"], type_of(block), type_of(block)
    return None
