"""What this plugin needs of napari that its public interface does not offer. Checked with napari 0.9.2."""

from __future__ import annotations

from typing import Any


def real_viewer(viewer: Any) -> Any:
    """Return the viewer behind the proxy that napari hands to plugin widgets.

    Needed as a dictionary key: a proxy dies with the widget that was given it, the viewer does not.
    """
    return getattr(viewer, "__wrapped__", viewer)
