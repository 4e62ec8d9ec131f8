"""Statistics of generalized linear models by independent programs.

    python -m venv venv && venv/bin/pip install numpy scipy statsmodels
    venv/bin/python tests/reference/glm_statistics.py DATA

writes glm_small.csv (90 rows drawn here) and glm_statistics.json beside this script; DATA is the folder that
PARSIMONY_DATA_DIR names. statsmodels in double precision: Logit (deviance and leverages: GLM from there), MNLogit, OLS on the small table's raw
columns and on the HIGGS sample, standardized (population standard deviation) and raw, with and without squares. NumPy:
effective degrees of freedom and sandwich standard errors at ridge optima, mean loss + ridge/2 |coefficients|^2 with
the intercept free.
"""
import gzip, json, os, sys
import numpy as np
import statsmodels.api as sm

here = os.path.dirname(os.path.abspath(__file__))
out = {}
# Newton's method to the end, without the ridge that statsmodels adds to its matrix.
NEWTON = {"method": "newton", "tol": 1e-14, "ridge_factor": 0, "maxiter": 100, "disp": 0, "warn_convergence": False}


def table(fit, level=0.95):
    interval = np.asarray(fit.conf_int(1 - level))
    flat = lambda a: np.asarray(a).T.ravel().tolist()  # class by class
    low, high = (interval[..., 0], interval[..., 1])
    if interval.ndim == 3:  # MNLogit: class, coefficient, side
        low, high = low.T, high.T
    return {"estimate": flat(fit.params), "standard_error": flat(fit.bse), "statistic": flat(fit.tvalues),
            "p": flat(fit.pvalues), "low": flat(low), "high": flat(high)}


def binomial(y, z, hat=True):
    logit = sm.Logit(y, z).fit(**NEWTON)
    fit = sm.GLM(y, z, family=sm.families.Binomial()).fit(start_params=logit.params, tol=1e-14, maxiter=100)
    assert np.abs(logit.params - fit.params).max() < 1e-9 * np.abs(fit.params).max()
    leverage = fit.get_hat_matrix_diag()
    return {**table(logit), "log_likelihood": logit.llf, "null_log_likelihood": -fit.null_deviance / 2, "deviance": fit.deviance,
            "null_deviance": fit.null_deviance, "r_squared": 1 - fit.deviance / fit.null_deviance, "aic": logit.aic, "bic": logit.bic,
            "leverages": leverage.tolist() if hat else [leverage.max(), int(leverage.argmax())]}


# A small table: three inputs of very different scales, a number, two classes and three classes that depend on them.
rng = np.random.default_rng(7)
n = 90
x = np.stack([rng.normal(size=n), 40 + 12 * rng.normal(size=n), 1e-3 * rng.gamma(2.0, size=n)], 1)
x = np.stack([np.round(column, places) for column, places in zip(x.T, [3, 2, 6])], 1)
u = (x - x.mean(0)) / x.std(0)
real = np.round(5 + u @ [2.0, -1.0, 0.1] + 1.5 * rng.normal(size=n), 3)
two = (u @ [1.2, -0.7, 0.2] + rng.logistic(size=n) > 0).astype(int)
three = np.argmax(np.stack([np.zeros(n), u @ [1, 0.5, 0], u @ [-0.5, 1, 0.3]], 1) + rng.gumbel(size=(n, 3)), 1)
with open(os.path.join(here, "glm_small.csv"), "w") as file:
    file.write("dose,age,rate,real,two,three\n")
    for i in range(n):
        name = ["low", "mid", "top"][three[i]]
        file.write(f"{x[i, 0]:.3f},{x[i, 1]:.2f},{x[i, 2]:.6f},{real[i]:.3f},{'no yes'.split()[two[i]]},{name}\n")
x = x.astype(np.float32).astype(np.float64)
real = real.astype(np.float32).astype(np.float64)
z = sm.add_constant(x)
out["small-logistic"] = binomial(two, z)
out["small-logistic-99"] = table(sm.Logit(two, z).fit(**NEWTON), level=0.99)

fit = sm.MNLogit(three, z).fit(**NEWTON)
out["small-softmax"] = {**table(fit), "log_likelihood": fit.llf, "null_log_likelihood": fit.llnull, "r_squared": fit.prsquared,
                        "aic": fit.aic, "bic": fit.bic}


def ols(y, z, hat=True):
    fit = sm.OLS(y, z).fit()
    influence = fit.get_influence()
    return {**table(fit), "log_likelihood": fit.llf, "deviance": fit.ssr,
            "null_deviance": fit.centered_tss if fit.k_constant else fit.uncentered_tss, "r_squared": fit.rsquared,
            "aic": fit.aic, "bic": fit.bic, "residual_standard_error": np.sqrt(fit.scale),
            "leverages": influence.hat_matrix_diag.tolist() if hat else
            [influence.hat_matrix_diag.max(), int(influence.hat_matrix_diag.argmax())],
            "press": float((influence.resid_press ** 2).sum())}


out["small-least-squares"] = ols(real, z)
out["small-least-squares-through-zero"] = ols(real, x)

RIDGE = 0.02
penalty = n * RIDGE * np.diag([0.0, 1, 1, 1])
zu = sm.add_constant((x - x.mean(0)) / x.std(0))
theta = np.zeros(4)
for _ in range(50):
    p = 1 / (1 + np.exp(-(zu @ theta)))
    h = (zu.T * (p * (1 - p))) @ zu
    theta -= np.linalg.solve(h + penalty, zu.T @ (p - two) + penalty @ theta)
p = 1 / (1 + np.exp(-(zu @ theta)))
h = (zu.T * (p * (1 - p))) @ zu
inverse = np.linalg.inv(h + penalty)
out["small-logistic-ridge"] = {"strength": RIDGE, "estimate": theta.tolist(), "edf": np.trace(inverse @ h),
                               "standard_error": np.sqrt(np.diag(inverse @ h @ inverse)).tolist()}
h = zu.T @ zu
inverse = np.linalg.inv(h + penalty)
theta = inverse @ (zu.T @ real)
edf = np.trace(inverse @ h)
residuals = real - zu @ theta
scale = (residuals ** 2).sum() / (n - edf)
out["small-least-squares-ridge"] = {"strength": RIDGE, "estimate": theta.tolist(), "edf": edf,
                                    "standard_error": np.sqrt(scale * np.diag(inverse @ h @ inverse)).tolist()}

raw = np.loadtxt(gzip.open(os.path.join(sys.argv[1], "higgs/higgs-35k.csv.gz")), delimiter=",").astype(np.float32).astype(np.float64)
y, x = raw[:, 0], raw[:, 1:]
u = (x - x.mean(0)) / x.std(0)
squares = u * u
squares = (squares - squares.mean(0)) / squares.std(0)
out["higgs-linear"] = binomial(y, sm.add_constant(u), False)
out["higgs-squares"] = binomial(y, sm.add_constant(np.hstack([u, squares])), False)
out["higgs-squares-raw"] = table(sm.Logit(y, sm.add_constant(np.hstack([x, x * x]))).fit(**NEWTON))
# The lepton's momentum as a real target of the other columns.
out["higgs-least-squares"] = ols(x[:, 0], sm.add_constant(u[:, 1:]), False)

with open(os.path.join(here, "glm_statistics.json"), "w") as file:
    json.dump(out, file, indent=1)
    file.write("\n")
