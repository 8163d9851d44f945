"""Run a benchmark: ``python -m benchmarks NAME [--json FILE] ...``.

A benchmark is a module of this package with ``add_arguments(parser)`` and ``run(options) -> Report``.
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import sys
from importlib import import_module
from pathlib import Path

import benchmarks

HELPERS = ("__main__", "kv_plot", "kv_ways", "report", "sdist", "serve_beside")


def names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in HELPERS)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Figures of this machine, side by side.")
    chosen = parser.add_subparsers(dest="name", required=True)
    for name in names():
        module = import_module(f"benchmarks.{name}")
        sub = chosen.add_parser(name, help=(module.__doc__ or "").splitlines()[0])
        sub.add_argument("--json", type=Path, help="also write the figures to this file")
        module.add_arguments(sub)
    options = parser.parse_args(arguments)
    report = import_module(f"benchmarks.{options.name}").run(options)
    print(report.table())
    if options.json:
        options.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
