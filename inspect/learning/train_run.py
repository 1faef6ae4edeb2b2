"""`depthcell train`: recordings of good parts, and of labelled defective ones if there are any, become a model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from depthcell.calib.cell import Cell
from depthcell.errors import DepthcellError
from depthcell.inspect.inspection import Inspector
from depthcell.inspect.inspection_run import RunPlan, load_recipe
from depthcell.inspect.learning.modelreasons import ModelReasons
from depthcell.inspect.learning.training_parts import PartReader
from depthcell.inspect.modelinput import canonical_views
from depthcell.inspect.observation import Observer
from depthcell.models.artifact import save_model
from depthcell.models.training.checkpoint import FILE, Look
from depthcell.models.training.settings import TrainingSettings
from depthcell.models.training.training import TrainingRequest, train_model


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """What to train.

    Attributes:
        run: the folder of parts, and the recipe.
        out: folder of the model.
        settings: how.
        resume: whether to go on with a training that was cut off.
    """

    run: RunPlan
    out: Path
    settings: TrainingSettings
    resume: bool = False

    @property
    def work(self) -> Path:
        """Where parts as the network takes them, checkpoints and the log are kept, beside the model."""
        return self.out.with_name(f"{self.out.name}.training")


class Watcher(Protocol):
    """Who watches a training."""

    def begin(self, what: str, total: int) -> None:
        """A new stage of so many steps begins."""
        ...

    def advance(self) -> None:
        """One step of the stage is done."""
        ...

    def say(self, what: str) -> None:
        """Something a person should know."""
        ...


class BoardLog:
    """Writes a TensorBoard log, and tells a watcher."""

    def __init__(self, folder: Path, watcher: Watcher) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - takes a second, and training alone needs it

        self._writer: Any = SummaryWriter(str(folder))
        self._watcher = watcher

    def stepped(self, step: int, loss: float) -> None:
        """A step was taken."""
        self._writer.add_scalar("loss/training", loss, step)
        self._watcher.advance()

    def looked(self, look: Look) -> None:
        """The validation parts were looked at."""
        self._writer.add_scalar("loss/validation", look.loss, look.step)
        self._writer.add_scalar("auroc/validation", look.auroc, look.step)
        self._writer.flush()
        self._watcher.say(f"step {look.step}: validation loss {look.loss:.3f}, AUROC {look.auroc:.3f}")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def run_training(plan: TrainPlan, watcher: Watcher) -> tuple[dict[str, Any], str]:
    """Read the parts, train, write the model; returns its card as data and as text.

    Raises:
        DepthcellError: recipe, cell or parts cannot be used, the output folder holds other things, or an earlier
            training was cut off and nobody said whether to go on with it.
    """
    _check_work(plan)
    recipe = load_recipe(plan.run)
    cell = Cell.load(plan.run.cell or recipe.cell_path)
    # Shape alone tells whether a part can be good; gauges and statistics of good parts are for the line.
    observer = Observer(recipe.model_copy(update={"gauge": (), "color": None}), cell)
    views = canonical_views(observer)
    reader = PartReader(Inspector(observer, cell, None), observer, views, plan.work / "parts")
    begin: Callable[[int], None] = lambda total: watcher.begin("read parts", total)  # noqa: E731 - one line, used once
    for note in reader.read(plan.run.source, begin, watcher.advance):
        watcher.say(note)
    watcher.begin("train", plan.settings.steps)
    log = BoardLog(plan.work / "board", watcher)
    try:
        made = train_model(TrainingRequest(reader.store, views, plan.settings, plan.work / "steps"), log)
    finally:
        log.close()
    watcher.begin("explain", 1)
    content = ModelReasons.learnt(made.good, made.defective, views).kept_with(made.content)
    save_model(plan.out, content)
    watcher.advance()
    return content.card, content.card_text


def _check_work(plan: TrainPlan) -> None:
    begun = (plan.work / "steps" / FILE).is_file()
    if begun and not plan.resume:
        raise DepthcellError(
            f"{plan.work}: a training was begun there; add --resume to go on with it, or remove the folder"
        )
