"""The peers' side of `cargo bench --bench glm_fit`: scikit-learn and glum on the same events.

Reads X.npy (n x d, f32, standardized) and y.npy, solves for the optimum in f64 by Newton's method, and then does what it
is told, line by line: `calibrate NAME` finds the loosest tolerance with which a solver comes within a relative gap of
1e-10 of the optimum, `fit NAME` fits with it, `judge FILE` tells the gap of coefficients in a file (intercept first).
Answers are JSON, one line each.
"""

import json
import sys
import time

import numpy as np

GAP = 1e-10
CHUNK = 1_000_000


def newton(x, y, theta=None, most=30):
    """The optimum in f64: gradient and information summed over chunks of rows."""
    n, d = x.shape
    theta = np.zeros(d + 1) if theta is None else theta
    for _ in range(most):
        gradient, information = np.zeros(d + 1), np.zeros((d + 1, d + 1))
        for start in range(0, n, CHUNK):
            z = np.column_stack([np.ones(len(x[start : start + CHUNK])), x[start : start + CHUNK].astype(np.float64)])
            p = 1 / (1 + np.exp(-z @ theta))
            gradient += z.T @ (p - y[start : start + CHUNK])
            information += (z * (p * (1 - p))[:, None]).T @ z
        theta = theta - np.linalg.solve(information, gradient)
        if np.abs(gradient).max() / n < 1e-13:
            break
    return theta


def loss(x, y, theta):
    total = 0.0
    for start in range(0, len(x), CHUNK):
        eta = x[start : start + CHUNK].astype(np.float64) @ theta[1:] + theta[0]
        total += np.sum(np.logaddexp(0, eta) - y[start : start + CHUNK] * eta)
    return total / len(x)


def scikit_learn(solver, x, y):
    from sklearn.linear_model import LogisticRegression

    def fit(tolerance):
        model = LogisticRegression(C=np.inf, solver=solver, tol=tolerance, max_iter=1000)
        model.fit(x, y)
        return np.concatenate([model.intercept_, model.coef_[0]]), int(model.n_iter_[0])

    return fit


def glum(x, y):
    from glum import GeneralizedLinearRegressor

    def fit(tolerance):
        model = GeneralizedLinearRegressor(family="binomial", alpha=0, solver="irls-ls", gradient_tol=tolerance)
        model.fit(x, y)
        return np.concatenate([[model.intercept_], model.coef_]), int(model.n_iter_)

    return fit


def main():
    folder = sys.argv[1]
    x, y = np.load(f"{folder}/X.npy"), np.load(f"{folder}/y.npy")
    optimum = newton(x, y)
    least = loss(x, y, optimum)
    np.savetxt(f"{folder}/optimum.txt", optimum, fmt="%.17g")
    say = lambda **answer: print(json.dumps(answer), flush=True)
    say(loss=least)
    chosen = {}

    def solver(name):
        program, how, kind = name.split("/")
        # One copy of the data at a time in the type and order that the solver likes best.
        order = "F" if program == "glum" else "C"
        data = np.asarray(x, dtype=kind, order=order)
        target = y.astype(kind)
        return glum(data, target) if program == "glum" else scikit_learn(how, data, target)

    for line in sys.stdin:
        verb, argument = line.split()
        if verb == "judge":
            theta = np.loadtxt(argument)
            say(gap=loss(x, y, theta) / least - 1, off=np.abs(theta - optimum).max() / np.abs(optimum).max())
            continue
        fit = solver(argument)
        if verb == "calibrate":
            best = None
            for exponent in (3, 4, 5, 6, 7):
                theta, _ = fit(10.0**-exponent)
                gap = loss(x, y, theta) / least - 1
                if best is None or gap < best[1]:
                    best = (10.0**-exponent, gap)
                if gap <= GAP:
                    break
            chosen[argument] = best[0]
            say(tolerance=best[0], gap=best[1])
        else:
            start = time.perf_counter()
            theta, iterations = fit(chosen[argument])
            seconds = time.perf_counter() - start
            off = np.abs(theta - optimum).max() / np.abs(optimum).max()
            say(seconds=seconds, iterations=iterations, gap=loss(x, y, theta) / least - 1, off=off)


main()
