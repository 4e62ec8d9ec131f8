"""What classifiers trained on simulated HIGGS events are worth on real ones.

usage: python higgs_sim_transfer.py REAL.csv[.gz] SIMULATED.csv[.gz]

Both files: label first, then 28 columns, no header. The simulator's parameters were fitted to the even-numbered rows
of the real file (counted from 0), so real models are trained on those and every model is tested on the odd ones; as
many simulated rows train, and as many others test. Standardization is fitted on the rows that train. "squares" adds
the square of each standardized column. Needs numpy and scikit-learn.
"""

import gzip
import sys

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler


def read(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt") as file:
        return np.loadtxt(file, delimiter=",", dtype=np.float32)


def with_squares(x):
    return np.hstack([x, x * x])


def logistic():
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-4))


def squares():
    return make_pipeline(StandardScaler(), FunctionTransformer(with_squares), logistic())


def trees():
    return HistGradientBoostingClassifier(max_iter=300, learning_rate=0.06, early_stopping=True, random_state=0)


def split(d):
    return d[:, 1:].astype(float), d[:, 0]


def main():
    real, simulated = read(sys.argv[1]), read(sys.argv[2])
    n = len(real) // 2
    if len(simulated) < 2 * n:
        sys.exit(f"needs at least {2 * n} simulated rows")
    parts = {
        "real": (split(real[0::2][:n]), split(real[1::2][:n])),
        "simulated": (split(simulated[:n]), split(simulated[n : 2 * n])),
    }
    print(f"{n} rows train, {n} others test; accuracy (AUC)")
    print(f"{'model':<10}{'real to real':>18}{'sim. to real':>18}{'sim. to sim.':>18}{'loss, points':>14}")
    for name, make in (("logistic", logistic), ("squares", squares), ("trees", trees)):
        cells = []
        for train, test in (("real", "real"), ("simulated", "real"), ("simulated", "simulated")):
            model = make().fit(*parts[train][0])
            x, y = parts[test][1]
            score = model.predict_proba(x)[:, 1]
            cells.append((((score > 0.5) == y).mean(), roc_auc_score(y, score)))
            if name == "logistic" and test == train:
                iterations = model[-1].n_iter_[0]
                print(f"  (logistic regression, {train}: {iterations} iterations of lbfgs)", file=sys.stderr)
        text = "".join(f"{a:>10.4f} ({u:.3f})" for a, u in cells)
        print(f"{name:<10}{text}{100 * (cells[0][0] - cells[1][0]):>14.1f}")
    # How well a classifier tells the two apart, which is the honest measure of what remains wrong.
    x = np.vstack([parts["real"][0][0], parts["simulated"][0][0]])
    y = np.repeat([1, 0], n)
    tx = np.vstack([parts["real"][1][0], parts["simulated"][1][0]])
    for label, word in ((1, "signal"), (0, "background")):
        k = np.concatenate([parts["real"][0][1], parts["simulated"][0][1]]) == label
        t = np.concatenate([parts["real"][1][1], parts["simulated"][1][1]]) == label
        score = trees().fit(x[k], y[k]).predict_proba(tx[t])[:, 1]
        print(f"trees telling real from simulated, {word}: AUC {roc_auc_score(y[t], score):.3f}")


main()
