"""What ``last.npz`` says about a run, beside the arrays: its settings, and where it stands."""

from dataclasses import asdict, dataclass, field

from minivit.errors import MinivitError
from minivit.training.config import TrainConfig
from minivit.training.json_fields import from_json, is_number

ROW = ("epoch", "train_loss", "test_loss", "test_top1", "test_top5", "lr")
"""What every line of ``log.jsonl`` has, and the curves show."""


@dataclass
class RunState:
    """Where a run stands: with the arrays of model and optimiser, all that changes from step to step."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the next one, and over these:
    loss_sum: float = 0.0  # sum of the loss over images
    images: int = 0  # images seen
    train_seconds: float = 0.0
    rows: list = field(default_factory=list)  # the lines of log.jsonl
    all_images: int = 0  # images seen in the whole run
    all_train_seconds: float = 0.0  # time in training steps
    all_seconds: float = 0.0  # and with evaluation
    best: dict | None = None  # test_top1 and test_top5 of best.npz
    best_ema: float | None = None  # test_top1 of ema.npz


@dataclass
class RunRecord:
    """The entry ``training`` of ``last.npz``."""

    config: TrainConfig
    state: RunState
    generator: dict  # state of the generator that draws the model's masks
    parameters: int  # how many trainable numbers the network has
    train_images: int  # of the data set
    environment: dict  # in which the run was started; resuming does not change it

    def as_dict(self):
        """Return the fields as a dict that JSON can hold."""
        return asdict(self)

    @classmethod
    def of(cls, saved):
        """Return what the ``Checkpoint`` ``saved`` says.

        Raises:
            MinivitError: it is not the state of a run, or makes no sense.
        """
        training = saved.training
        if training is None:
            raise MinivitError(f"{saved.path} holds weights only, not the state of a run: it cannot be resumed")
        try:
            config = TrainConfig.from_dict(training.get("config"))
            state = from_json(RunState, training.get("state"), "the run's state")
            _check_state(config, state)
            return from_json(cls, training | {"config": config, "state": state}, "what it says of the run")
        except MinivitError as error:
            raise MinivitError(f"{saved.path} cannot be resumed: {error}") from error


def _check_state(config, state):
    if state.epoch > config.epochs or len(state.rows) != state.epoch:
        raise MinivitError(f"{state.epoch} of {config.epochs} epochs are done, and {len(state.rows)} are logged")
    if not all(isinstance(row, dict) and all(is_number(row.get(key)) for key in ROW) for row in state.rows):
        raise MinivitError("a line of its log is damaged")
    best = state.best
    if best is not None and not (best.keys() == {"test_top1", "test_top5"} and all(map(is_number, best.values()))):
        raise MinivitError("what it says of the best epoch is damaged")
