"""A sweep's curve as its caller has it: the API's JSON, which can also become a data frame or a picture.

pandas, altair and the drawing are imported where they are used, so that the client loads at once.
"""

import base64
import html
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from altair import Chart, VConcatChart
    from pandas import DataFrame

    from ml import curve

Draw = Callable[[str | None], dict[str, Any] | None]


class Curve(dict[str, Any]):
    """Mutual information against how well the tasks are done: a dictionary, as `GET /v1/sweeps/{id}/curve` answers it.

    `draw` answers the Vega-Lite of one task, or of all for None. Without it (of a curve.json, of a copy), or where it answers
    None, the curve draws itself.
    """

    def __init__(self, found: Mapping[str, Any], draw: Draw | None = None):
        super().__init__(found)
        self._draw = draw

    def __reduce__(self) -> tuple[Any, ...]:
        return Curve, (dict(self),)  # a copy holds no connection

    def to_frame(self) -> "DataFrame":
        """One row a point with the columns of curve.csv, indexed by the axis: its values, or without an order their labels."""
        try:
            from pandas import DataFrame, Index  # noqa: PLC0415
        except ImportError:
            raise ImportError("to_frame needs pandas: pip install pandas") from None
        from app.figure import table  # noqa: PLC0415

        numbers = self._numbers()
        columns, rows = table(numbers)
        frame = DataFrame([[float("nan") if cell is None else cell for cell in row] for row in rows], columns=columns)
        values = [point.value if numbers.axis.ordered else point.label for point in numbers.points]
        return frame.set_axis(Index(values, name=numbers.axis.name))

    def plot(self, task: str | None = None) -> "Chart | VConcatChart":
        """The service's own figure as an altair chart, of this task or of all; notebooks show it, and `save` writes it."""
        import altair  # noqa: PLC0415

        chart: Chart = altair.Chart.from_dict(self._specification(task))
        return chart

    def verdict(self, task: str | None = None) -> str:
        """What may be said of this task in words, or of all, a line each."""
        self._check(task)
        said = {name: verdict["words"] for name, verdict in self["verdicts"].items() if task in (None, name)}
        if not said:
            return "no verdict yet: no task has been measured"
        return "\n".join(f"{name}: {words}" if len(said) > 1 else words for name, words in said.items())

    def _repr_html_(self) -> str:
        """The figure, whose title bears the verdict; of one piece, so that it needs no network to be seen."""
        from app.figure import render  # noqa: PLC0415

        picture = base64.b64encode(render(self._specification(None), "svg")).decode()
        return f'<img src="data:image/svg+xml;base64,{picture}" alt="{html.escape(self.verdict())}">'

    def _specification(self, task: str | None) -> dict[str, Any]:
        self._check(task)
        drawn = self._draw(task) if self._draw else None
        if drawn is None:
            from app.figure import figure  # noqa: PLC0415

            drawn = figure(self._numbers(), "", task)
        return drawn

    def _numbers(self) -> "curve.Curve":
        from ml import curve  # noqa: PLC0415

        return curve.Curve.model_validate(self)

    def _check(self, task: str | None) -> None:
        if task is not None and task not in self["verdicts"]:
            raise ValueError(f"no task {task!r} on this curve; it has {', '.join(self['verdicts']) or 'none yet'}")
