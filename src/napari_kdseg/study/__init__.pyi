import napari_kdseg.study.config

from .job import StudyResult as StudyResult
from .job import study as study
from .progress import RunState as RunState
from .progress import StudyProgress as StudyProgress
from .report.evidence import write_evidence as write_evidence
from .table import Table as Table

StudyConfig = napari_kdseg.study.config.StudyConfig
