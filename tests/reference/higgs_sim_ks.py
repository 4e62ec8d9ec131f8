"""Kolmogorov-Smirnov distance, mean and sd of simulated against real HIGGS events, per column and class.

usage: python higgs_sim_ks.py REAL.csv[.gz] SIMULATED.csv[.gz] [odd|even|all]

Both files: label first, then 28 columns, no header. The simulator's parameters were fitted to the even-numbered rows
of the real file (counted from 0); the default here is therefore the odd ones. Needs numpy.
"""

import gzip
import sys

import numpy as np

NAMES = (
    "lepton_pT,lepton_eta,lepton_phi,missing_energy_magnitude,missing_energy_phi,"
    "jet1_pT,jet1_eta,jet1_phi,jet1_b_tag,jet2_pT,jet2_eta,jet2_phi,jet2_b_tag,"
    "jet3_pT,jet3_eta,jet3_phi,jet3_b_tag,jet4_pT,jet4_eta,jet4_phi,jet4_b_tag,"
    "m_jj,m_jjj,m_lv,m_jlv,m_bb,m_wbb,m_wwbb"
).split(",")


def read(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt") as file:
        return np.loadtxt(file, delimiter=",", dtype=np.float32)


def distance(a, b):
    """The largest difference between two empirical distribution functions."""
    a, b = np.sort(a), np.sort(b)
    at = np.concatenate([a, b])
    return np.abs(np.searchsorted(a, at, "right") / len(a) - np.searchsorted(b, at, "right") / len(b)).max()


def main():
    real, simulated = read(sys.argv[1]), read(sys.argv[2])
    half = sys.argv[3] if len(sys.argv) > 3 else "odd"
    real = {"odd": real[1::2], "even": real[0::2], "all": real}[half]
    distances, correlation = [], []
    print(f"real: {len(real)} {half} rows; simulated: {len(simulated)} rows")
    print(f"{'column':<26}{'class':<11}{'KS':>6}{'mean real':>11}{'simulated':>11}{'sd real':>10}{'simulated':>11}")
    for column, name in enumerate(NAMES, 1):
        for label, word in ((1, "signal"), (0, "background")):
            a, b = (d[d[:, 0] == label, column].astype(float) for d in (real, simulated))
            distances.append(distance(a, b))
            print(f"{name:<26}{word:<11}{distances[-1]:>6.3f}{a.mean():>11.3f}{b.mean():>11.3f}{a.std():>10.3f}{b.std():>11.3f}")
    for label in (1, 0):
        a, b = (np.corrcoef(d[d[:, 0] == label, 1:].astype(float).T) for d in (real, simulated))
        correlation.append((a - b)[np.triu_indices(28, 1)])
    correlation = np.abs(np.concatenate(correlation))
    print(f"KS distance: median {np.median(distances):.3f}, mean {np.mean(distances):.3f}, largest {max(distances):.3f}")
    print(f"correlations within a class: rms difference {np.sqrt((correlation**2).mean()):.3f}, largest {correlation.max():.3f}")


main()
