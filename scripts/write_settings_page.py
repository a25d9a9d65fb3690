"""Write docs/settings.md from the table of settings.

python scripts/write_settings_page.py
"""

from __future__ import annotations

from pathlib import Path

from asyncstore.settings import SETTINGS, Setting

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
HEAD = """\
# Settings

Every environment variable that asyncstore knows. Names and meanings are MLflow's or the storage
library's own. An argument in code goes before a variable; a variable that is set goes before what
asyncstore would choose. A variable that is set to nothing counts as unset. A value that is not
acceptable is an error that names the variable and what it takes.

This page is generated from the table in `asyncstore/settings.py` by
`python scripts/write_settings_page.py`.
"""
LATER = """
## Known, and not honoured yet

These belong to storages and databases that come later. They are listed so that their names are
settled; this version does not act on them.
"""


def page() -> str:
    """The whole page."""
    now = [setting for setting in SETTINGS.values() if setting.honoured]
    later = [setting for setting in SETTINGS.values() if not setting.honoured]
    differing = [setting for setting in SETTINGS.values() if setting.mlflow]
    parts = [HEAD, "\n## Honoured now\n"]
    for applies_to in dict.fromkeys(setting.applies_to for setting in now):
        parts.append(f"\n### For {applies_to}\n\n")
        parts += [describe(s) for s in now if s.applies_to == applies_to]
    parts.append(LATER)
    parts.append("\n| Variable | For | Meaning | Takes |\n|---|---|---|---|\n")
    parts += [
        f"| `{s.name}` | {cell(s.applies_to)} | {cell(s.meaning)} | {cell(s.accepts)} |\n"
        for s in later
    ]
    parts.append("\n## Where MLflow differs\n\n")
    parts.append(
        "MLflow 3.17's code is the reference; where its documents say something else, both are "
        "named.\n\n| Variable | asyncstore when unset | MLflow |\n|---|---|---|\n"
    )
    parts += [f"| `{s.name}` | {cell(default(s))} | {cell(s.mlflow)} |\n" for s in differing]
    return "".join(parts)


def describe(setting: Setting[object]) -> str:
    """One variable: its meaning, and what it takes."""
    facts = [] if setting.accepts == "text" else [f"Takes {setting.accepts}."]
    if setting.unit and setting.unit not in setting.accepts:
        facts.append(f"Unit: {setting.unit}.")
    if setting.default not in (None, {}):
        facts.append(f"Default: {default(setting)}.")
    if setting.secret:
        facts.append("Never shown in messages.")
    if setting.mlflow:
        facts.append(setting.mlflow)
    return f"`{setting.name}`\n:   {' '.join([setting.meaning, *facts])}\n\n"


def default(setting: Setting[object]) -> str:
    """What holds when the variable is not set, in words."""
    if setting.default is None:
        found = setting.meaning.partition("Unset: ")[2]
        return found.rstrip(".") or "not set"
    if isinstance(setting.default, bool):
        return str(setting.default).lower()
    return f"{setting.default} {setting.unit}".strip()


def cell(text: str) -> str:
    """Text that cannot end a table cell."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
