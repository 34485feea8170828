"""How masks are looked at, as a person set it; kept from one day to the next."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_kdseg.widgets.state.remembered import recall, remember

KEY = "views"
Percent = Annotated[int, Field(ge=5, le=100)]


class ViewSettings(BaseModel):
    """Settings of the views. What is assigned is checked, and kept by :meth:`keep`.

    Attributes
    ----------
    outline
        Masks as outlines in the colour of their source; otherwise filled in the colours of the classes.
    sides
        Groups that are held against one another: left and right of the curtain, outside and inside of the lens, the two
        that flicker, the panes. ``""`` is the slide alone; as the third it is no pane.
    divider
        Place of the curtain's divider, as a share of the canvas's width.
    radius
        Of the lens, in pixels of the screen.
    changes
        Of the flicker, a second. Photosensitive people stand three flashes, which are six changes (WCAG 2.3.1).
    opacity
        In percent, by group.
    """

    model_config = ConfigDict(validate_assignment=True, extra="ignore")

    outline: bool = True
    sides: tuple[str, str, str] = ("teacher", "student", "")
    divider: float = Field(default=0.5, ge=0.0, le=1.0)
    radius: int = Field(default=120, ge=30, le=400)
    changes: float = Field(default=2.0, ge=0.5, le=6.0)
    opacity: dict[str, Percent] = Field(
        default_factory=lambda: {"teacher": 90, "student": 90, "corrected": 70, "disagreement": 70}
    )

    def keep(self) -> None:
        """Start with these the next time."""
        remember(KEY, self.model_dump_json())

    @classmethod
    def kept(cls) -> ViewSettings:
        """Those of the last time; as they are at first, where they cannot be read any more."""
        try:
            return cls.model_validate_json(recall(KEY) or "{}")
        except ValidationError:
            return cls()
