"""One published loss a file: plain functions of tensors, ``loss(student, teacher, target=None, **constants)``.

Each computes in float32, also where its input is in half precision, and in float64 where its input is.
"""
