"""One published loss a file: plain functions of tensors, ``loss(student, teacher, target=None, **constants)``."""
