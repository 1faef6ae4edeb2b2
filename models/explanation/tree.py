"""A decision tree over named features: the sentence that says why a place is called what it is, and its picture.

The tree decides nothing. It is fitted to places of good parts and to defects of the training data, and read along the
path that a place at hand takes. A model keeps the table it was fitted to, not the tree: fitting is exact and quick, and
no pickle has to be read.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier, plot_tree

from depthcell.errors import DepthcellError
from depthcell.models.explanation.findingfeatures import FEATURES, IN_WORDS, FindingFeatures

GOOD = "good"
DEPTH, FEWEST_ON_LEAF = 4, 3
LARGEST = 1e6


@dataclass(frozen=True, slots=True, eq=False)
class ReasonTree:
    """A fitted tree and the table that it was fitted to.

    Attributes:
        rows: (n, F) features in the order of `FEATURES`.
        kinds: (n,) what each place is: "good" or a kind of defect.
        fitted: scikit-learn's tree.
    """

    rows: NDArray[np.float64]
    kinds: tuple[str, ...]
    fitted: DecisionTreeClassifier = field(repr=False)

    @classmethod
    def fit(cls, places: Sequence[tuple[FindingFeatures, str]]) -> "ReasonTree":
        """Fit to places and what they are, each kind with the same weight; the same table gives the same tree.

        Raises:
            DepthcellError: good places or defects are lacking.
        """
        return cls._fitted(np.array([place.values() for place, _ in places]), tuple(kind for _, kind in places))

    @classmethod
    def from_json(cls, content: Any) -> "ReasonTree":
        """As `to_json` gave it.

        Raises:
            DepthcellError: the table is not whole.
        """
        try:
            names, rows, kinds = (
                content["features"],
                np.array(content["rows"], dtype=np.float64),
                tuple(content["kinds"]),
            )
            whole = tuple(names) == FEATURES and rows.shape == (len(kinds), len(FEATURES))
        except (KeyError, TypeError, ValueError) as error:
            raise DepthcellError("reason tree: the model's table is not whole; train it anew") from error
        if not whole or not np.isfinite(rows).all() or not all(isinstance(kind, str) for kind in kinds):
            raise DepthcellError("reason tree: the model's table has other features than this depthcell; train it anew")
        return cls._fitted(rows, kinds)

    def to_json(self) -> dict[str, Any]:
        """The table it was fitted to."""
        return {"features": list(FEATURES), "rows": np.round(self.rows, 5).tolist(), "kinds": list(self.kinds)}

    @classmethod
    def _fitted(cls, rows: NDArray[np.float64], kinds: tuple[str, ...]) -> "ReasonTree":
        if GOOD not in kinds or set(kinds) == {GOOD}:
            raise DepthcellError("reason tree: needs places of good parts and defects; train with both")
        rows = np.clip(np.round(rows, 5), -LARGEST, LARGEST)
        tree = DecisionTreeClassifier(
            max_depth=DEPTH, min_samples_leaf=FEWEST_ON_LEAF, class_weight="balanced", random_state=0
        )
        return cls(rows, kinds, tree.fit(rows, kinds))

    def judge(self, place: FindingFeatures) -> tuple[str, float]:
        """What the tree calls a place, and the share of its leaf's training places, by weight, that were that."""
        shares = self.fitted.predict_proba(self._row(place))[0]
        best = int(np.argmax(shares))
        return str(self.fitted.classes_[best]), float(shares[best])

    def path(self, place: FindingFeatures) -> tuple[str, ...]:
        """Conditions that a place meets from the root to its leaf, in words; of several on one feature the tightest."""
        inner, row = self.fitted.tree_, self._row(place)
        nodes = self.fitted.decision_path(row).indices
        bounds: dict[str, list[float | None]] = {}
        for node in nodes:
            number = int(inner.feature[node])
            if number < 0:
                continue
            bound = bounds.setdefault(FEATURES[number], [None, None])
            limit = float(inner.threshold[node])
            if float(np.float32(row[0, number])) <= limit:
                bound[1] = limit if bound[1] is None else min(bound[1], limit)
            else:
                bound[0] = limit if bound[0] is None else max(bound[0], limit)
        values = dict(zip(FEATURES, row[0].tolist(), strict=True))
        return tuple(_condition(name, values[name], *bound) for name, bound in bounds.items())

    def sentence(self, place: FindingFeatures) -> str:
        """Why a place is called what it is."""
        kind, share = self.judge(place)
        return (
            f"{kind.replace('_', ' ')} ({share:.0%} of such places in training), because {'; '.join(self.path(place))}"
        )

    def picture(self) -> bytes:
        """The tree as a PNG."""
        names = [f"{IN_WORDS[name][0]}{f', {unit}' if (unit := IN_WORDS[name][1]) else ''}" for name in FEATURES]
        with mpl.rc_context({"font.size": 8}):
            leaves = self.fitted.get_n_leaves()
            figure = Figure(
                figsize=(max(8.0, 1.35 * leaves), 1.5 * (self.fitted.get_depth() + 1)), layout="constrained"
            )
            FigureCanvasAgg(figure)
            axis = figure.subplots()
            kinds = [str(kind).replace("_", " ") for kind in self.fitted.classes_]
            plot_tree(
                self.fitted,
                feature_names=names,
                class_names=kinds,
                impurity=False,
                filled=True,
                rounded=True,
                ax=axis,
                fontsize=7,
            )
            stream = io.BytesIO()
            figure.savefig(stream, format="png", dpi=90)
        return stream.getvalue()

    def _row(self, place: FindingFeatures) -> NDArray[np.float64]:
        return np.clip(np.round(np.array([place.values()], dtype=np.float64), 5), -LARGEST, LARGEST)


def _condition(name: str, value: float, low: float | None, high: float | None) -> str:
    word, unit = IN_WORDS[name]
    unit = f" {unit}" if unit else ""
    limits = [
        f"above {low:.3g}{unit}" if low is not None else "",
        f"at most {high:.3g}{unit}" if high is not None else "",
    ]
    return f"{word} {value:.3g}{unit} is {' and '.join(limit for limit in limits if limit)}"
