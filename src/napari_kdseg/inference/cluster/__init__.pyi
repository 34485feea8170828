from .config import PredictManyConfig as PredictManyConfig
from .job import PredictManyResult as PredictManyResult
from .job import predict_many as predict_many
