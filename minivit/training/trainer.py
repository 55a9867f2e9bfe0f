"""One run in progress: steps, epochs, what is saved when, and how a run is left and taken up again."""

import contextlib
import math
import time

import numpy as np

from minivit.analysis.plots import save_curves
from minivit.errors import MinivitError
from minivit.kernels.memory import keep_freed_memory
from minivit.ops.loss import cross_entropy
from minivit.tensor import Tensor
from minivit.training import build, checkpoint, report
from minivit.training.ema import ModelEma
from minivit.training.environment import describe_environment
from minivit.training.evaluation import evaluate
from minivit.training.losses import distillation_loss
from minivit.training.optimizers import clip_grad_norm
from minivit.training.run_state import RunRecord, RunState
from minivit.training.signals import StopRequest
from minivit.training.teacher import Teacher

SAVE_EVERY = 300.0
"""Seconds between saves inside an epoch."""

INTERRUPT, TIME_BUDGET = "interrupt", "time budget"
"""What can stop a run before its end."""


class Trainer:
    """The network, its optimiser, the batches, and the state that ``last.npz`` keeps.

    Args:
        config: a ``TrainConfig``.
        folder: the ``RunFolder`` to write to.
        dataset: a ``minivit.data.Dataset``.
    """

    def __init__(self, config, folder, dataset):
        self.config, self.folder, self.dataset, self.state = config, folder, dataset, RunState()
        self.environment = self.first_environment = describe_environment()
        self.loader = build.build_loader(config, dataset)
        self.model = build.build_model(config, dataset)
        self.constrained = [module for module in self.model.modules() if hasattr(module, "constrain")]
        self.teacher = Teacher(config.teacher, dataset) if config.teacher else None
        if config.linear_probe:
            build.freeze_features(self.model)
        self.optimizer = build.build_optimizer(config, self.model)
        self.schedule = build.build_schedule(config, len(self.loader))
        self.ema = ModelEma(self.model, config.ema, config.ema_warmup) if config.ema else None
        self.answers = None  # of the teacher, where they do not depend on the augmentation

    def load_initial_weights(self):
        """Take over the weights of ``config.init_from``, and say what could not be taken over."""
        moved = build.load_initial_weights(self.model, self.config, self.dataset.class_names)
        if self.ema is not None:
            self.ema = ModelEma(self.model, self.config.ema, self.config.ema_warmup)
        if moved.dropped:
            report.note(f"note: not taken over: {', '.join(moved.dropped)}")
        for name, (old, new) in moved.resampled.items():
            report.note(f"note: {name} resampled from {old[0]}x{old[1]} to {new[0]}x{new[1]}")

    @property
    def step(self):
        """Number of steps taken so far in the whole run."""
        return self.state.epoch * len(self.loader) + self.state.batch

    def run(self, time_budget=None):
        """Train until the last epoch, the time budget in minutes, or a signal.

        Returns:
            None for a finished run, else ``INTERRUPT`` or ``TIME_BUDGET``.

        Raises:
            MinivitError: loss or weights are no longer finite, or a file cannot be written.
        """
        keep_freed_memory()
        self._print_header()
        deadline = math.inf if time_budget is None else time.perf_counter() + 60 * time_budget
        stopped_by = None
        if self.teacher is not None and not self.loader.augmentation.is_random:
            self.answers = self.teacher.answers()
        # Every step looks for overflow and NaN, and reports them with their place: no warnings before that.
        with StopRequest() as stop, np.errstate(over="ignore", invalid="ignore"):
            while self.state.epoch < self.config.epochs and stopped_by is None:
                stopped_by = self._train_epoch(stop, deadline) or self._close_epoch(stop, deadline)
            if stopped_by is not None:
                self.save_last()
            if stopped_by == TIME_BUDGET and self.state.batch > 0:
                stopped_by = self._test_unfinished_epoch(stop)
        draw_curves(self.folder, self.config, self.state.rows)
        return stopped_by

    def _train_epoch(self, stop, deadline):
        """Take the remaining steps of an epoch. Returns None at its end, or what stopped it before."""
        state, total = self.state, len(self.loader)
        self.model.train(not self.config.linear_probe)  # frozen features are those of evaluation
        self.model.training = True  # the network itself: two heads answer one by one, and each has its lesson
        saved = started = time.perf_counter()
        label = f"epoch {state.epoch + 1}/{self.config.epochs}"
        batches = contextlib.closing(self.loader.epoch(state.epoch, start_batch=state.batch))
        with report.progress(label, total, "steps", state.batch) as bar, batches as batches:
            for images, targets in batches:
                loss = self._take_step(images, targets)
                now = time.perf_counter()
                self._count(len(targets), loss, now - started)
                started = now
                bar.update()
                if stop.requested:
                    return INTERRUPT
                if now > deadline and state.batch < total:
                    return TIME_BUDGET
                if now - saved > SAVE_EVERY:
                    self.save_last()
                    saved = time.perf_counter()
        return None

    def _take_step(self, images, targets):
        """Forward, backward, update. Returns the loss before the update, a float."""
        loss = self._loss(self.model(Tensor(images)), targets, self._lesson(images))
        loss.backward()
        value, self.optimizer.lr = loss.item(), self.schedule(self.step)
        if not math.isfinite(value):
            self._raise_diverged(f"the loss became {value}", self.step + 1)
        norm = clip_grad_norm(self.model.parameters(), self.config.clip or math.inf)
        if not math.isfinite(norm):
            self._raise_diverged(f"the norm of the gradient became {norm}", self.step + 1)
        self.optimizer.step()
        for module in self.constrained:
            module.constrain()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.step + 1)
        return value

    def _lesson(self, images):
        """The teacher's logits for the images of the next step, or None without a teacher."""
        if self.answers is not None:
            return self.answers[self.loader.indices(self.state.epoch, self.state.batch)]
        return None if self.teacher is None else self.teacher(images)

    def _loss(self, logits, targets, lesson):
        """Cross-entropy, and where there is a teacher its lesson.

        Without one, the two heads of a distilled model both learn the labels.
        """
        c = self.config
        if lesson is not None:
            return distillation_loss(
                logits, targets, lesson, mode=c.distill, alpha=c.alpha, temperature=c.temperature,
                reduction=c.kl_reduction, label_smoothing=c.label_smoothing,
            )  # fmt: skip
        if isinstance(logits, tuple):
            return sum(self._loss(head, targets, None) for head in logits) / len(logits)
        return cross_entropy(logits, targets, label_smoothing=c.label_smoothing)

    def _count(self, images, loss, seconds):
        state = self.state
        state.batch += 1
        state.loss_sum += loss * images
        state.images += images
        state.all_images += images
        state.train_seconds += seconds
        state.all_train_seconds += seconds
        state.all_seconds += seconds

    def _evaluate(self, stop):
        """Measure the network on the test images. Returns an Evaluation, or None if a signal came."""
        with report.progress("testing", len(self.dataset.test), "images") as bar:

            def on_batch(images):
                bar.update(images)
                return stop.requested

            d = self.dataset
            measured = evaluate(self.model, d.test, d.mean, d.std, img_size=d.img_size, on_batch=on_batch)
        if measured is not None:
            if not math.isfinite(measured.loss):
                self._raise_diverged(f"the test loss became {measured.loss}", self.step)
            self.state.all_seconds += measured.seconds
        return measured

    def _evaluate_average(self, stop):
        """Measure the averaged weights, and keep them if they are better than before. Returns as ``_evaluate``."""
        with self.ema.swap():
            measured = self._evaluate(stop)
            best = self.state.best_ema
            if measured is not None and (best is None or measured.top1 > best):
                checkpoint.save(self.folder.ema, self.model, **self._description())
                self.state.best_ema = measured.top1
        return measured

    def _close_epoch(self, stop, deadline):
        """Evaluate, save and log after the last step of an epoch. Returns what stops the run, or None."""
        measured, state = self._evaluate(stop), self.state
        average = None if self.ema is None or measured is None else self._evaluate_average(stop)
        if measured is None or (self.ema is not None and average is None):
            return INTERRUPT  # the state stays at the end of this epoch: resuming begins with its evaluation
        row = {
            "epoch": state.epoch + 1,
            "train_loss": round(state.loss_sum / state.images, 6),
            "test_loss": round(measured.loss, 6),
            "test_top1": round(measured.top1, 2),
            "test_top5": round(measured.top5, 2),
            "lr": self.schedule(self.step - 1),
            "images_per_second": round(state.images / state.train_seconds, 1),
            "seconds": round(state.train_seconds + measured.seconds, 2),
        }
        if average is not None:
            row |= {"ema_loss": round(average.loss, 6), "ema_top1": round(average.top1, 2)}
        self._keep_if_best(measured)
        state.epoch, state.batch = state.epoch + 1, 0
        state.loss_sum, state.images, state.train_seconds = 0.0, 0, 0.0
        state.rows.append(row)
        self.save_last()
        self.folder.append_log(row)  # after last.npz, from which a resumed run writes the log anew
        report.print_row(row)
        return TIME_BUDGET if state.epoch < self.config.epochs and time.perf_counter() > deadline else None

    def _test_unfinished_epoch(self, stop):
        """Evaluate where the time budget ended. Returns what stopped the run."""
        measured = self._evaluate(stop)
        if measured is None:
            return INTERRUPT
        self._keep_if_best(measured)
        self.save_last()
        return TIME_BUDGET

    def _keep_if_best(self, measured):
        """Write best.npz if the network that was measured is better than all before it."""
        if self.state.best is None or measured.top1 > self.state.best["test_top1"]:
            self._check_arrays()
            self.state.best = {"test_top1": measured.top1, "test_top5": measured.top5}
            checkpoint.save(self.folder.best, self.model, **self._description())

    def save_last(self):
        """Write last.npz: everything that an exact continuation needs."""
        self._check_arrays()
        record = RunRecord(
            config=self.config,
            state=self.state,
            generator=self.model.generator.bit_generator.state,
            parameters=self.model.num_parameters(),
            train_images=len(self.dataset.train),
            environment=self.first_environment,
        )
        arrays = self.optimizer.state_dict()
        checkpoint.save(
            self.folder.last, self.model, training=record.as_dict(), optimizer=arrays,
            ema={} if self.ema is None else self.ema.state_dict(), **self._description(),
        )  # fmt: skip

    def restore(self, saved, record):
        """Take over the state of the checkpoint ``saved``, and write the log that belongs to it.

        Args:
            saved: a ``Checkpoint``.
            record: what it says of the run, ``RunRecord.of(saved)``.

        Raises:
            MinivitError: it holds another network, or the data set is not the one it was trained on.
        """
        # as configurations: a file from an earlier version does not have every keyword of this one
        if (saved.architecture, saved.configuration()) != (self.model.architecture, self.model.config):
            raise MinivitError(
                f"{saved.path} holds another network, {saved.architecture} with {saved.arguments}, than its "
                f"settings and the data set ask for, {self.model.architecture} with {self.model.arguments}"
            )
        if record.train_images != len(self.dataset.train):
            raise MinivitError(
                f"the data set has changed: {len(self.dataset.train)} training images, where the run started "
                f"with {record.train_images}"
            )
        self.state = record.state
        try:
            self.model.load_state_dict(saved.weights)
            self.optimizer.load_state_dict(saved.optimizer)
            if self.ema is not None:
                self.ema.load_state_dict(saved.ema)
            self.model.generator.bit_generator.state = record.generator
            if self.optimizer.steps != self.step or self.state.batch > len(self.loader):
                raise ValueError(f"{self.optimizer.steps} steps were taken, but it stands after step {self.step}")
        except (MinivitError, ValueError, TypeError, KeyError, OverflowError) as error:
            raise MinivitError(f"{saved.path} cannot be resumed: its state is damaged: {error}") from error
        if self.state.best is not None and not self.folder.best.is_file():
            report.note(f"note: {self.folder.best} is gone; the best epoch from here on takes its place")
            self.state.best = None
        if self.state.best_ema is not None and not self.folder.ema.is_file():
            report.note(f"note: {self.folder.ema} is gone; the best average from here on takes its place")
            self.state.best_ema = None
        self.folder.write_log(self.state.rows)
        self.first_environment = before = record.environment
        now = self.environment
        changed = [f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]]
        if changed:
            report.note(
                "note: the environment is not that in which the run started, so the last bits may differ: "
                + ", ".join(changed)
            )

    def _description(self):
        d = self.dataset
        return {"data": d.name, "class_names": d.class_names, "mean": d.mean, "std": d.std}

    def _check_arrays(self):
        """A step can leave NaN behind though its loss was finite: never save that over a good checkpoint."""
        if self._first_not_finite() is not None:
            self._raise_diverged("the weights or the optimiser's averages are no longer finite", self.step)

    def _first_not_finite(self):
        """Name of the first array that holds inf or NaN, or None."""
        named = list(self.model.named_parameters())
        arrays = [(f"parameter {name}", p.data) for name, p in named]
        arrays += [(f"buffer {name}", b.data) for name, b in self.model.named_buffers()]
        arrays += [(f"gradient of {name}", p.grad) for name, p in named if p.grad is not None]
        arrays += [(f"{slot} of {name}", a) for slot, own in self.optimizer.state.items() for name, a in own.items()]
        return next((name for name, array in arrays if not np.isfinite(array).all()), None)

    def _raise_diverged(self, what, step):
        """Report what happened in the step of that number, counted from 1."""
        first = self._first_not_finite() or "an intermediate result"
        raise MinivitError(
            f"{what} at step {step} (epoch {(step - 1) // len(self.loader) + 1}, learning rate "
            f"{self.optimizer.lr:.3g}); first that is not finite: {first}. {self.folder.last} keeps the last "
            "good state; start a new run with a lower --lr"
        )

    def _print_header(self):
        c, d = self.config, self.dataset
        lines = [
            f"{c.model} on {c.data}: {self.model.num_parameters():,} parameters, {d.num_classes} classes, "
            f"{len(d.train):,} training and {len(d.test):,} test images",
            f"recipe {c.recipe}, {c.epochs} x {len(self.loader)} steps of {c.batch_size} images, "
            f"{self.environment['threads']} threads; files in {self.folder.path}",
        ]
        if c.teacher:
            lines.append(f"{c.distill} distillation from {c.teacher}, alpha {c.alpha:g}, temperature {c.temperature:g}")
        if self.step:
            lines.append(f"resumed after step {self.step:,}")
        report.print_header(*lines)


def draw_curves(folder, config, rows):
    """Draw ``curves.png``; a picture that cannot be drawn is no reason to fail."""
    if not rows:
        return
    try:
        save_curves(folder.curves, rows, f"{config.model} on {config.data}")
    except MinivitError as error:
        report.note(f"note: no {folder.curves.name}: {error}")
