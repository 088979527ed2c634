"""Released files as model folders of ours."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from vidstill.config import ConfigError
from vidstill.files import atomic
from vidstill.models.adapt import Report
from vidstill.models.model import VideoModel
from vidstill.models.released import released_settings
from vidstill.models.weights import describes_itself, fetch, load_released, needs_recipe, save

IMPORTED = "import.txt"  # in the folder: what of the file went where


def import_released(
    source: str | Path, recipe: str | Path | None, folder: str | Path | None = None, settings: Sequence[str] = ()
) -> tuple[Path, VideoModel, Report]:
    """Write the folder of a model for a released file, by default runs/<name of the file>.

    best.safetensors and best.json hold the weights, classes and clip, and where they are from; config.yaml the recipe
    with `settings` (`--data.classes names.txt`), which says with which views it is tested; import.txt what went where.
    Returns the folder, the model and that report. Raises ValueError for a file that is not of the recipe, or without a
    recipe, with those that it fits; ConfigError for a folder that holds a model.
    """
    path = fetch(source)
    if describes_itself(path):
        raise ValueError(f"{source} says itself which network it is of: it needs no import, give it to any command")
    if recipe is None:
        raise needs_recipe(path)
    home = Path(folder) if folder is not None else Path("runs") / path.stem
    if held := [name for name in ("best.safetensors", "last.pt") if (home / name).exists()]:
        raise ConfigError(f"{home} holds a model ({held[0]}): choose another --out")
    run = released_settings(recipe, [*settings, "--name", home.name, "--out", str(home.parent)])
    model, report = load_released(source, recipe, run)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    home.mkdir(parents=True, exist_ok=True)
    with atomic(home / "config.yaml") as file:
        file.write(run.to_yaml().encode())
    with atomic(home / IMPORTED) as file:
        file.write(f"{report}\n".encode())
    made = {"source": path.name, "sha256": digest, "recipe": str(recipe), "vidstill": version("vidstill")}
    save(model, home / "best", provenance=made)
    return home, model, report
