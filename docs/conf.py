"""The documentation as a site (Sphinx): ``make docs``. Warnings are errors, so that no link and no name goes stale."""

from importlib.metadata import version as version_of

project = "napari-kdseg"
author = "The napari-kdseg developers"
version = release = version_of("napari-kdseg")

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["evidence/notes-*.md", "evidence/read-first-*.md"]  # parts of evidence/report.md
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource", "exclude-members": "model_config"}
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = project
