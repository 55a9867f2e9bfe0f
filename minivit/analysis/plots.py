"""Pictures of a run. Needs Matplotlib, the extra ``plots``; drawn without a display."""

from minivit.analysis.figure import new_figure, plain, save_figure

LOSS, ACCURACY, RATE = "#4c72b0", "#c44e52", "#55a868"


def save_curves(path, rows, title):
    """Draw training loss, test accuracy and learning rate over the epochs, one panel each.

    Args:
        path: the PNG file, a ``Path``.
        rows: the lines of ``log.jsonl``, dicts; accuracies in percent.
        title: what stands above.

    Raises:
        MinivitError: Matplotlib is not installed, or the file cannot be written.
    """
    figure = new_figure(12, 3.6)
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) < 20 else None
    figure.suptitle(plain(title))
    loss, accuracy, rate = figure.subplots(1, 3)

    def line(axes, key, colour, **style):
        axes.plot(epochs, [row[key] for row in rows], color=colour, marker=marker, **style)

    line(loss, "train_loss", LOSS, label="training")
    line(loss, "test_loss", LOSS, label="test", linestyle="--")
    loss.set_title("loss")
    loss.legend()

    line(accuracy, "test_top5", ACCURACY, label="top-5", linestyle="--")
    line(accuracy, "test_top1", ACCURACY, label="top-1")
    accuracy.set_title("test accuracy (%)")
    accuracy.set_ylim(0, 102)
    accuracy.legend()

    line(rate, "lr", RATE)
    rate.set_title("learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))

    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    save_figure(figure, path)
