"""Rows, columns, classes and sums of the real data files, as pandas, scikit-learn and NumPy read them.

    python -m venv venv && venv/bin/pip install numpy pandas scikit-learn
    PARSIMONY_DATA_DIR=... venv/bin/python tests/reference/data_sums.py > tests/reference/data_sums.json

Every value is rounded to float32 first, as the readers do, and summed in float64: `sum` over all features,
`weighted` over features times their column number (from 1) times (row number mod 1000 + 1), which notices values that
changed places. Printed with numpy 2.4.6, pandas 3.1.1 and scikit-learn 1.9.1.
"""
import gzip, json, os, sys
import numpy as np
import pandas as pd
from sklearn.datasets import load_svmlight_file
from sklearn.preprocessing import StandardScaler

DIR = os.environ["PARSIMONY_DATA_DIR"]


def entry(x, y):
    x = np.asarray(x, dtype=np.float32).astype(np.float64)
    n, d = x.shape
    classes, counts = np.unique(y, return_counts=True)
    numeric = not isinstance(classes[0], str)
    weights = np.outer(np.arange(n) % 1000 + 1, np.arange(1, d + 1))
    return {
        "rows": n,
        "columns": d,
        "classes": [f"{c:g}" if numeric else str(c) for c in classes.tolist()],
        "counts": counts.tolist(),
        "sum": float(x.sum()),
        "weighted": float((x * weights).sum()),
        "first_column_mean": float(x[:, 0].mean()),
        "last_column_sd": float(x[:, -1].std()),
    }


def csv(name, target):
    # As text first: NumPy rounds decimal text correctly whatever the version of pandas.
    frame = pd.read_csv(os.path.join(DIR, name), header=None, dtype=str)
    y = frame.pop(frame.columns[target])
    try:
        y = y.astype(np.float64)
    except ValueError:
        pass
    return entry(frame.to_numpy(dtype=str).astype(np.float64), y.to_list())


def libsvm(name):
    x, y = load_svmlight_file(os.path.join(DIR, name), dtype=np.float64, zero_based=False)
    return entry(x.toarray(), y)


def mnist(part):
    def elements(kind, offset):
        with gzip.open(os.path.join(DIR, f"mnist/{part}-{kind}-ubyte.gz")) as file:
            return np.frombuffer(file.read(), dtype=np.uint8, offset=offset)

    y = elements("labels-idx1", 8)
    return entry(elements("images-idx3", 16).reshape(len(y), -1), y)


def text(name):
    with open(os.path.join(DIR, name), encoding="utf-8-sig", newline="") as file:
        content = file.read()
    return {"bytes": len(content.encode()), "characters": len(content), "symbols": len(set(content))}


def scaler(name, fold):
    """StandardScaler on the rows whose number modulo 5 is not `fold`: the training part of a fold."""
    frame = pd.read_csv(os.path.join(DIR, name), header=None, dtype=str)
    x = frame.to_numpy(dtype=str)[:, 1:].astype(np.float64).astype(np.float32).astype(np.float64)
    fitted = StandardScaler().fit(x[np.arange(len(x)) % 5 != fold])
    return {"mean": fitted.mean_.tolist(), "scale": fitted.scale_.tolist()}


out = {"higgs/higgs-35k.csv.gz": csv("higgs/higgs-35k.csv.gz", 0)}
for name in ["libsvm/banknote_authentication.csv", "libsvm/sonar.csv"]:
    out[name] = csv(name, -1)
for name in "a9a.gz a9a.t.gz w8a.gz mushrooms.txt.gz svmguide1.txt german.numer heart_scale splice".split():
    out["libsvm/" + name] = libsvm("libsvm/" + name)
for part in ["train", "t10k"]:
    out[f"mnist/{part}-images-idx3-ubyte.gz"] = mnist(part)
for name in ["tinyshakespeare", "war-and-peace", "wikitext-2-valid", "wikitext-2-test"]:
    out[f"text/{name}.txt"] = text(f"text/{name}.txt")
out["StandardScaler"] = scaler("higgs/higgs-35k.csv.gz", 2)
json.dump(out, sys.stdout, indent=1)
print()
