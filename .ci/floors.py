"""The lowest versions that pyproject.toml allows, as constraints for pip."""

import tomllib
from pathlib import Path

# Not ours, but of packages at their floors: newer ones call what those use deprecated, and warnings are errors here, or
# want a newer NumPy without saying so.
COMPANIONS = ["chardet<6", "click<8.3", "pyarrow<21", "pyparsing<3.3"]


def floors(project: dict) -> list[str]:
    """One ``name==version`` for each requirement; one without a lower bound is an error."""
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in extras.values() for line in extra)]
    ours = [line for line in lines if not line.startswith(f"{project['name']}[")]
    if free := [line for line in ours if not (">=" in line or "==" in line) or "," in line]:
        raise SystemExit(f"each requirement must have one lower bound: {', '.join(free)}")
    return sorted({line.replace(">=", "==") for line in ours})


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    print(*floors(project), *COMPANIONS, sep="\n")
