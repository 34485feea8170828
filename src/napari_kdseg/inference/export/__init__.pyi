from .config import ExportModelConfig as ExportModelConfig
from .job import ExportedModel as ExportedModel
from .job import export_model as export_model
from .onnx_copy import describe_onnx as describe_onnx
