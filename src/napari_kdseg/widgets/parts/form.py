"""A form for a pydantic model: one magicgui widget a field, with its title, sentence and bounds."""

from __future__ import annotations

import types
from typing import Any, Union, cast, get_origin

from magicgui.widgets import CheckBox, LineEdit, create_widget
from magicgui.widgets.bases import ValueWidget
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from qtpy.QtWidgets import QFormLayout, QLabel, QWidget

BOUNDS = {"ge": "min", "gt": "min", "le": "max", "lt": "max"}


class SettingsForm:
    """Edits one pydantic model.

    Parameters
    ----------
    model
        The model's class; its defaults fill the form.
    only
        The fields to show, in this order; all of them when empty.
    """

    def __init__(self, model: type[BaseModel], only: tuple[str, ...] = ()):
        self.model = model
        fields = {name: model.model_fields[name] for name in only or model.model_fields}
        self.widgets = {name: _widget(name, field) for name, field in fields.items()}
        self.native = QWidget()
        layout = QFormLayout(self.native)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for widget in self.widgets.values():
            if isinstance(widget, CheckBox):
                layout.addRow(widget.native)
                continue
            label = QLabel(widget.label)
            label.setToolTip(widget.tooltip)
            widget.native.setMinimumWidth(90)
            widget.native.setMaximumWidth(150)
            layout.addRow(label, widget.native)

    def values(self) -> dict[str, Any]:
        """What the form says now, by field name; validated by whoever builds the model of it."""
        lists = {
            name for name in self.widgets if get_origin(self.model.model_fields[name].annotation) is tuple
        }
        return {name: _listed(w.value) if name in lists else _parsed(w) for name, w in self.widgets.items()}

    def fill(self, values: dict[str, Any]) -> None:
        """Show ``values``; fields that are not named keep what they show."""
        for name, widget in self.widgets.items():
            if name in values:
                value = values[name]
                widget.value = _text(value) if isinstance(widget, LineEdit) else value


def _widget(name: str, field: FieldInfo) -> ValueWidget[Any]:
    symbol = (
        (field.json_schema_extra or {}).get("symbol") if isinstance(field.json_schema_extra, dict) else None
    )
    label = field.title or name.replace("_", " ")
    if symbol and field.annotation is not bool:
        label += f" ({symbol})"
    options: dict[str, Any] = {"tooltip": field.description or ""}
    annotation = field.annotation
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        made = LineEdit(value=_text(field.default), name=name, label=label, **options)
        made.native.setPlaceholderText("one, two, ..." if get_origin(annotation) is tuple else "none")
        return made
    for bound in field.metadata:
        for attribute, option in BOUNDS.items():
            limit = getattr(bound, attribute, None)
            if limit is not None:
                options[option] = limit
    if annotation is float:
        options.setdefault("min", -1e6)
        options.setdefault("max", 1e6)
        options["step"] = 10 ** _exponent(field.default)
    elif annotation is int:
        options.setdefault("max", 10**7)
    widget = create_widget(
        value=field.default, annotation=annotation, name=name, label=label, options=options
    )
    return cast("ValueWidget[Any]", widget)


def _exponent(value: float | None) -> int:
    """Decimal place to step by: a tenth of the default, a hundredth at most for values around one."""
    magnitude = abs(float(value)) if value else 0.1
    exponent = -1
    while magnitude < 10 ** (exponent + 1) and exponent > -7:
        exponent -= 1
    return exponent


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _parsed(widget: ValueWidget[Any]) -> Any:
    if not isinstance(widget, LineEdit):
        return widget.value
    text = widget.value.strip()
    if text in ("", "None", "none"):
        return None
    if text.lstrip("-").isdigit():
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text
