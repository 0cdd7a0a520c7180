"""The command behind `make doctor`."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from gdino_build.doctor.collect import collect_facts
from gdino_build.doctor.compatibility import load_compatibility
from gdino_build.doctor.diagnosis import BLOCKS, diagnose
from gdino_build.doctor.report import format_report

_EXAMPLES = """examples:
  make doctor
  python3 -m gdino_build.doctor --json

exit code: 0 if this machine can serve, 1 if something blocks it
"""


def main() -> int:
    """Look, and tell."""
    parser = argparse.ArgumentParser(
        prog="gdino_build.doctor",
        description="Say what of this machine cannot work together, why, and what mends it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, default=Path(), help="of the checkout (default: here)")
    parser.add_argument("--environment", type=Path, default=Path(".venv"), help="of the project (default: .venv)")
    parser.add_argument("--json", action="store_true", help="print facts and findings as JSON")
    arguments = parser.parse_args()
    facts = collect_facts(arguments.root, arguments.environment)
    findings = diagnose(facts, load_compatibility())
    if arguments.json:
        print(json.dumps({"facts": asdict(facts), "findings": [asdict(one) for one in findings]}, indent=2))
    else:
        print(format_report(facts, findings))
    return int(any(finding.weight == BLOCKS for finding in findings))
