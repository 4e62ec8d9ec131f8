"""Optima of generalized linear models by independent programs, as JSON on standard output.

    python -m venv venv && venv/bin/pip install numpy scipy scikit-learn statsmodels
    venv/bin/python tests/reference/glm_optima.py DATA > tests/reference/glm_optima.json

DATA is the folder that PARSIMONY_DATA_DIR names. HIGGS: statsmodels' GLM (binomial, IRLS in double precision) on
all rows, inputs standardized with the population standard deviation. LIBSVM files: raw features, objective
mean loss + ridge/2 |coefficients|^2 with the intercept free, by scikit-learn's newton-cholesky (C = 1/(n ridge)),
polished by Newton steps in double precision; loss and objective of scikit-learn's own answer stand beside.
"""
import gzip, io, json, os, sys
import numpy as np
from sklearn.datasets import load_svmlight_file
from sklearn.linear_model import LogisticRegression
import statsmodels.api as sm

root = sys.argv[1]
out = {}

raw = np.loadtxt(gzip.open(os.path.join(root, "higgs/higgs-35k.csv.gz")), delimiter=",").astype(np.float32).astype(np.float64)
y, x = raw[:, 0], raw[:, 1:]
u = (x - x.mean(0)) / x.std(0)
squares = u * u
squares = (squares - squares.mean(0)) / squares.std(0)
for name, z in [("linear", u), ("squares", np.hstack([u, squares]))]:
    fit = sm.GLM(y, sm.add_constant(z), family=sm.families.Binomial()).fit(tol=1e-14, maxiter=100)
    out["higgs-" + name] = {
        "objective": -fit.llf / len(y),
        "coefficients": fit.params.tolist(),
        "standard_errors": fit.bse.tolist(),
    }


def objective(theta, z, t, ridge):
    eta = z @ theta[1:] + theta[0]
    return np.logaddexp(0, eta).mean() - (t * eta).mean() + 0.5 * ridge * (theta[1:] ** 2).sum()


RIDGE = 1e-4
for name, file in [("a9a", "a9a.gz"), ("w8a", "w8a.gz"), ("mushrooms", "mushrooms.txt.gz"), ("splice", "splice"),
                   ("svmguide1", "svmguide1.txt"), ("german-numer", "german.numer"), ("heart-scale", "heart_scale")]:
    data = open(os.path.join(root, "libsvm", file), "rb").read()
    if file.endswith(".gz"):
        data = gzip.decompress(data)
    x, t = load_svmlight_file(io.BytesIO(data))
    x = np.asarray(x.todense(), dtype=np.float32).astype(np.float64)
    t = (t == t.max()).astype(np.float64)
    n, d = x.shape
    fit = LogisticRegression(C=1 / (n * RIDGE), solver="newton-cholesky", tol=1e-12, max_iter=200).fit(x, t)
    theta = np.concatenate([fit.intercept_, fit.coef_[0]])
    by_sklearn = objective(theta, x, t, RIDGE)
    z = np.hstack([np.ones((n, 1)), x])
    penalty = np.full(d + 1, RIDGE)
    penalty[0] = 0
    for _ in range(5):
        p = 1 / (1 + np.exp(-(z @ theta)))
        g = z.T @ (p - t) / n + penalty * theta
        h = (z.T * (p * (1 - p))) @ z / n + np.diag(penalty)
        theta -= np.linalg.solve(h, g)
    out[name] = {"ridge": RIDGE, "rows": n, "columns": d, "objective": objective(theta, x, t, RIDGE), "scikit_learn": by_sklearn}

print(json.dumps(out, indent=1))
