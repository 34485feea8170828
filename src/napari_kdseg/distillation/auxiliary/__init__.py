"""Networks that are trained before or beside the student: assistants, paraphraser, critic."""
