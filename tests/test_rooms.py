"""The floors of the house: a room imports only from rooms below its own (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

import vidstill

SOURCE = Path(vidstill.__file__).parent
# From the ground up. Modules of one floor do not import each other's room, but for the ground floor.
FLOORS = [
    {"config", "overrides", "labels", "files", "terminal", "progress", "recipes"},
    {"devices"},
    {"video"},
    {"data"},
    {"models"},
    {"objectives"},
    {"evaluation"},
    {"inference"},
    {"explain"},
    {"reporting"},
    {"tasks"},
    {"training"},
    {"demo", "shown"},
    {"cli"},
    {"__init__", "__main__"},
]
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Rooms that a file imports anywhere, inside functions too."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports by the whole name"
            names = [node.module or ""]
            if node.module == "vidstill":
                names = [f"vidstill.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("vidstill.")}
    return rooms


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    for other in imported(path) - {room}:
        assert HEIGHT[other] < HEIGHT[room] or HEIGHT[other] == HEIGHT[room] == 0, f"{room} imports {other}"


def test_every_room_has_its_floor_and_the_page_names_it() -> None:
    rooms = {room_of(path) for path in SOURCE.rglob("*.py")}
    assert rooms <= HEIGHT.keys()
    page = (SOURCE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = {room for room in rooms - {"__init__", "__main__", "recipes"} if f"`{room}" not in page}
    assert not missing, f"docs/architecture.md does not tell of {missing}"
