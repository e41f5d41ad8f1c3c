"""
Data-parallel training over MPI
===============================

Several processes train one network on scikit-learn's digits, each with its part of every batch.
With ``group=`` the batch norms take their statistics over the parts of all, and the accuracy goes
the way that one process goes with whole batches. Without it, each process normalizes by the
statistics of its own few rows, and takes another way. ``mpiexec -n 2 python
examples/mpi_digits.py`` prints a table and leaves a picture in the folder ``results`` (first: ``pip
install ".[examples,mpi]" mpich``).

.. image:: /images/mpi_digits.png

* A network needs two changes: ``group=comm`` in its batch norms, and a sum of the gradients over
  all processes after each backward pass.
* A batch need not divide evenly. Each process weighs its rows as the whole batch does.
"""

# sphinx_gallery_thumbnail_path = "images/mpi_digits.png"

from pathlib import Path

import numpy as np
from _network import (
    Dense,
    Digits,
    Network,
    ReLU,
    accuracy,
    cross_entropy_gradient,
    mini_batches,
    scaled_digits,
    sgd_step,
    use_one_thread,
)
from _output import example_parser, picture_path, set_accuracy_axis, style
from matplotlib.figure import Figure
from mpi4py import MPI

import cybn

PIXELS, HIDDEN, CLASSES = 64, 64, 10
BATCH_SIZE = 9  # of all processes, at least: so small that it matters whose statistics are taken
LEARNING_RATE = 0.3
COLORS = {"one process": "#8a8a8a", "with group": "#00798c", "without group": "#d1495b"}


def build(group: MPI.Intracomm | None) -> Network:
    """Return a network whose batch norm has a group; all processes draw the same weights."""
    rng = np.random.default_rng(0)
    norm = cybn.BatchNorm(HIDDEN, group=group, dtype=np.float64)
    network = Network(Dense(PIXELS, HIDDEN, rng), norm, ReLU(), Dense(HIDDEN, CLASSES, rng))
    for layer in network.layers[::3]:  # float64, so that sums in another order are the same curve
        layer.weight, layer.bias = layer.weight.astype(np.float64), layer.bias.astype(np.float64)
    return network


def sum_gradients(network: Network, comm: MPI.Intracomm) -> None:
    """Replace each gradient by its sum over all processes: one exchange for all of them."""
    gradients = [gradient for _, gradient in network.parameters()]
    total = np.concatenate([gradient.ravel() for gradient in gradients])
    comm.Allreduce(MPI.IN_PLACE, total)
    cuts = np.cumsum([gradient.size for gradient in gradients])[:-1]
    for gradient, values in zip(gradients, np.split(total, cuts), strict=True):
        gradient[...] = values.reshape(gradient.shape)


def train(network: Network, digits: Digits, comm: MPI.Intracomm, epochs: int) -> list[float]:
    """Train with the rows of each batch shared out, and return the accuracy after each epoch."""
    x_train, x_test, labels_train, labels_test = digits
    rng = np.random.default_rng(1)  # the same batches in all processes
    batch_size = max(BATCH_SIZE, 2 * MPI.COMM_WORLD.size)  # alone, each needs two rows
    curve = []
    for _ in range(epochs):
        network.set_training(True)
        for batch in mini_batches(len(x_train), batch_size, rng):
            own = np.array_split(batch, comm.size)[comm.rank]
            dy = cross_entropy_gradient(network(x_train[own]), labels_train[own])
            network.backward(dy * (len(own) / len(batch)))  # of the mean over the whole batch
            sum_gradients(network, comm)
            sgd_step(network, LEARNING_RATE)
        curve.append(accuracy(network, x_test, labels_test))
    return curve


def print_table(curves: dict[str, list[float]]) -> None:
    print(f"\n{'epoch':<7}" + "".join(f"{name:>16}" for name in curves))
    for epoch, accuracies in enumerate(zip(*curves.values(), strict=True), 1):
        print(f"{epoch:<7}" + "".join(f"{value:>16.2%}" for value in accuracies))
    print("Accuracy on the test set.")


def save_picture(curves: dict[str, list[float]], size: int, path: Path) -> None:
    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=120)
    axes = figure.subplots()
    for name, curve in curves.items():
        (line,) = axes.plot(range(1, len(curve) + 1), curve, color=COLORS[name], label=name)
        if name == "one process":
            line.set(linewidth=6, alpha=0.4)
        else:
            line.set(marker="o")
    set_accuracy_axis(axes, [0.9, 0.95, 0.97, 0.98, 0.99])
    axes.set_xlabel("epoch")
    axes.legend(frameon=False)
    style(axes, f"{size} processes, batches of {max(BATCH_SIZE, 2 * size)} rows in all")
    figure.savefig(path)


def conclusion(curves: dict[str, list[float]], size: int) -> str:
    one, together, apart = (np.array(curve) for curve in curves.values())
    same = "that of one process" if np.array_equal(one, together) else "not that of one process"
    off = np.abs(one - apart).max()
    return (
        f"The curve is {same} when {size} processes share the statistics, and up to {off:.1%} away"
        " when each takes its own."
    )


def main() -> None:
    arguments = example_parser(__doc__, epochs=15).parse_args()
    comm = MPI.COMM_WORLD
    use_one_thread()
    digits = scaled_digits(seed=0)
    curves = {
        "one process": train(build(None), digits, MPI.COMM_SELF, arguments.epochs),
        "with group": train(build(comm), digits, comm, arguments.epochs),
        "without group": train(build(None), digits, comm, arguments.epochs),
    }
    if comm.rank == 0:  # the running statistics of the last variant are its own
        picture = picture_path(arguments.out, "mpi_digits")
        print_table(curves)
        save_picture(curves, comm.size, picture)
        print(f"Picture: {picture}")
        print(f"\n{conclusion(curves, comm.size)}")


if __name__ == "__main__":
    main()
