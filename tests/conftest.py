"""Where the shared clips and labels are, if they are anywhere."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real clips, labels and weights that are not part of the repository; tests on them skip without them."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("shared/data is not beside this checkout")
    return folder
