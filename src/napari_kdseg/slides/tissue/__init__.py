"""Where there is tissue on a slide: computed, or as a person corrected it."""
