"""Logistic regression by Adam in PyTorch, recorded so that `parsimony import-trace` can take it.

    python record.py events.csv adam.csv --seeds 3

reads rows of a label (0 or 1) and features, splits them as compare.toml does (the last 4,000 rows test, the 4,000 before
them validate), standardizes on the training rows, and writes a row per pass. The clock stops while metrics are computed.
It needs torch alone.
"""

import argparse
import csv
import time

import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

COLUMNS = ["seed", "step", "data_passes", "train_seconds", "objective", "train_loss", "train_accuracy"]
COLUMNS += ["validation_loss", "validation_accuracy", "test_loss", "test_accuracy"]


def load(path, held_out):
    """Features and labels of the training, validation and test rows, standardized on the training rows."""
    with open(path, newline="") as file:
        rows = torch.tensor([[float(value) for value in row] for row in csv.reader(file)], dtype=torch.float32)
    labels, features = rows[:, 0], rows[:, 1:]
    train = len(rows) - 2 * held_out
    features = (features - features[:train].mean(0)) / features[:train].std(0, correction=0)
    parts = [slice(0, train), slice(train, train + held_out), slice(train + held_out, None)]
    return [(features[part], labels[part]) for part in parts]


def fit(parts, seed, passes, batch_size, learning_rate):
    """Yields a row of the trace before the first pass and after each."""
    torch.manual_seed(seed)
    features, labels = parts[0]
    model = torch.nn.Linear(features.shape[1], 1)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    seconds, step = 0.0, 0

    def row(done):
        metrics = []
        with torch.no_grad():
            for x, y in parts:
                logits = model(x).squeeze(1)
                metrics += [cross_entropy(logits, y).item(), ((logits > 0) == (y > 0.5)).float().mean().item()]
        # Without a regularizer the objective is the training loss.
        return [seed, step, done, seconds, metrics[0], *metrics]

    yield row(0)
    for done in range(1, passes + 1):
        started = time.perf_counter()
        for batch in torch.randperm(len(labels)).split(batch_size):
            optimizer.zero_grad()
            cross_entropy(model(features[batch]).squeeze(1), labels[batch]).backward()
            optimizer.step()
            step += 1
        seconds += time.perf_counter() - started
        yield row(done)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("trace")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--passes", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    options = parser.parse_args()
    parts = load(options.data, held_out=4000)
    with open(options.trace, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for seed in range(1, options.seeds + 1):
            writer.writerows(fit(parts, seed, options.passes, options.batch_size, options.learning_rate))


if __name__ == "__main__":
    main()
