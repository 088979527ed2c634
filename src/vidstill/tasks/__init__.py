"""Tasks by the objective of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from vidstill.config import Run
    from vidstill.tasks.task import Report, Task


def task_of(run: Run, fabric: Fabric, report: Report) -> Task:
    """The task of a run with its data read and checked. Raises ConfigError for data that cannot be used."""
    from vidstill.tasks.recognition import Recognition

    return Recognition(run, fabric, report)
