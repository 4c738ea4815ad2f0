"""The end of a run of a suite that asks for pages: they are written, and where they are is said."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..cell import Job
    from ..runner import Report


def write_reports(report: "Report", job: "Job") -> None:
    """A page on every two of the run's backbones, or on the only one, if anything was run to show."""
    from ..report.writing import write_reports as write

    for path in write(report, job.home, watch=True) if report.results else ():
        print(f"report: {path}")
