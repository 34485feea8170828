"""One long piece of work: its events, how it is paused and cancelled, and where it runs."""

from napari_kdseg.jobs.control import Control, JobCancelled
from napari_kdseg.jobs.events import (
    Cancelled,
    Checkpointed,
    Done,
    Event,
    Failed,
    Message,
    Paused,
    Resumed,
    Started,
    Step,
    Terminal,
    Validated,
)
from napari_kdseg.jobs.runners import (
    DeferredJob,
    Emit,
    Job,
    RunningJob,
    run_inline,
    run_job,
    start_in_process,
    start_in_thread,
)

__all__ = [
    "Cancelled",
    "Checkpointed",
    "Control",
    "DeferredJob",
    "Done",
    "Emit",
    "Event",
    "Failed",
    "Job",
    "JobCancelled",
    "Message",
    "Paused",
    "Resumed",
    "RunningJob",
    "Started",
    "Step",
    "Terminal",
    "Validated",
    "run_inline",
    "run_job",
    "start_in_process",
    "start_in_thread",
]
