"""Write the table of fields into docs/schema.md:  python scripts/schema_doc.py"""

from __future__ import annotations

from pathlib import Path

from llmcrdt.document.schema import FIELDS, SCHEMA

PAGE = Path(__file__).resolve().parents[1] / "docs" / "schema.md"
_BEGIN, _END = "<!-- fields: written by scripts/schema_doc.py -->\n", "<!-- end of fields -->"


def page() -> str:
    """docs/schema.md with the table as the code has it."""
    rows = [
        f"| `{field.path}` | {field.type} | {field.rule} | {'yes' if field.visible else 'no'} | {field.holds} |"
        for field in FIELDS
    ]
    table = "\n".join(
        [
            f"Schema version {SCHEMA}.",
            "",
            "| field | type | two writes | seen | holds |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    return before + _BEGIN + table + _END + rest.partition(_END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
