"""What the numbers in the pixels mean: said by the file, decided in one place, made into what is shown."""
