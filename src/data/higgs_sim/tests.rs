//! What must hold of simulated events: conservation laws, resonances, angular laws, the selection, determinism, and
//! the likeness to real events.

use super::detector::Measured;
use super::features::{JET_ETA_UNITS, JET_UNITS, LEPTON_ETA_UNIT, LEPTON_UNIT, MASS_UNITS, TAG_UNITS};
use super::kinematics::{FourVector, azimuth, decay, direction_around, helicity_axis, isotropic};
use super::process::{Flavour, Parton, Virtual, left_handed, longitudinal, resonance};
use super::*;
use crate::data::locate;
use std::io::Read;

/// The columns of `rows` events: labels, then features.
fn sample(seed: u64, rows: usize) -> (Vec<f32>, Vec<Vec<f32>>) {
    let table = generate(seed, rows);
    let labels = (0..rows).map(|row| table.targets.get(row, 0)).collect();
    let columns = (0..28).map(|column| (0..rows).map(|row| table.features.get(row, column)).collect());
    (labels, columns.collect())
}

fn assert_equal(a: FourVector, b: FourVector, relative: f32) {
    let scale = a.e.abs().max(b.e.abs());
    for (a, b) in [(a.e, b.e), (a.x, b.x), (a.y, b.y), (a.z, b.z)] {
        assert!((a - b).abs() <= relative * scale, "{a} and {b} at scale {scale}");
    }
}

#[test]
fn decays_conserve_energy_and_momentum_and_put_daughters_on_their_mass_shells() {
    let rng = &mut Rng::new(1, 0);
    for _ in 0..2_000 {
        let mass = 50.0 + 400.0 * rng.uniform();
        let (m1, m2) = (0.45 * mass * rng.uniform(), 0.45 * mass * rng.uniform());
        let mother = FourVector::from_rapidity(mass, 80.0 * rng.normal(), 80.0 * rng.normal(), rng.normal());
        let (a, b) = decay(&mother, mass, m1, m2, isotropic(rng));
        assert_equal(a + b, mother, 1e-6);
        // e^2 - p^2 in single precision is known to about 1e-6 e^2.
        for (p, m) in [(a, m1), (b, m2)] {
            assert!((p.mass().powi(2) - m * m).abs() < 4e-6 * mother.e * mother.e, "{} for {m}", p.mass());
        }
    }
}

#[test]
fn radiation_conserves_energy_and_momentum() {
    let generator = Generator::new(&Parameters { light_splitting: 1.0, b_splitting: 1.0, ..Parameters::default() });
    let rng = &mut Rng::new(2, 0);
    let mut most = 0;
    for round in 0..2_000 {
        let flavour = if round % 2 == 0 { Flavour::Bottom } else { Flavour::Light };
        let mass = 10.0 + 60.0 * rng.uniform();
        let p = FourVector::from_rapidity(mass, 50.0 * rng.normal(), 50.0 * rng.normal(), rng.normal());
        let mut event = HardEvent::default();
        generator.shower(Virtual { parton: Parton { p, flavour, luck: 0.5 }, mass }, 0, rng, &mut event);
        let sum = event.partons.iter().fold(FourVector::default(), |sum, parton| sum + parton.p);
        assert_equal(sum, p, 2e-6);
        assert_eq!(event.partons.iter().filter(|parton| parton.flavour == flavour).count().min(1), 1);
        most = most.max(event.partons.len());
    }
    assert!(most >= 4, "repeated splittings happen");
}

#[test]
fn whole_events_balance_across_the_beam() {
    let generator = Generator::new(&Parameters::default());
    let rng = &mut Rng::new(3, 0);
    let mut event = HardEvent::default();
    let mut complete = 0;
    for round in 0..20_000 {
        if generator.draw(round % 2 == 0, rng, &mut event) {
            complete += 1;
            let partons = event.partons.iter().fold(FourVector::default(), |sum, parton| sum + parton.p);
            let sum = partons + event.lepton + event.neutrino;
            assert!((sum.x + event.soft.0).abs() < 1e-6 * sum.e && (sum.y + event.soft.1).abs() < 1e-6 * sum.e);
        }
    }
    assert!(complete > 2_000);
}

#[test]
fn resonances_have_their_masses_and_widths() {
    let parameters = Parameters::default();
    let generator = Generator::new(&parameters);
    let rng = &mut Rng::new(4, 0);
    let n = 20_000;
    let (mut heavy, mut charged, mut w, mut tops) = (vec![], vec![], vec![], vec![]);
    for _ in 0..n {
        let s = generator.signal(30.0, -20.0, 0.5, rng);
        let light = s.b[0].0 + s.b[1].0;
        assert!((light.mass() - parameters.light_mass).abs() < 0.02);
        charged.push((light + s.w[1].0).mass());
        heavy.push((light + s.w[1].0 + s.w[0].0).mass());
        w.push(s.w[0].0.mass());
        let t = generator.background(-10.0, 40.0, -0.5, rng);
        assert!((t.w[0].0.mass() - t.w[0].1).abs() < 0.05);
        tops.push((t.w[0].0 + t.b[0].0).mass());
    }
    // Half of a Breit-Wigner lies within half a width of the mass; the H0's lower tail is cut by phase space.
    for (masses, mass, width, off) in [
        (&mut heavy, parameters.heavy_mass, parameters.heavy_width, 0.12),
        (&mut charged, parameters.charged_mass, parameters.charged_width, 0.03),
        (&mut w, parameters.w_mass, parameters.w_width, 0.03),
        (&mut tops, parameters.top_mass, parameters.top_width, 0.03),
    ] {
        masses.sort_by(f32::total_cmp);
        let median = masses[n / 2];
        assert!((median - mass).abs() < 0.1 * width, "median {median} of {mass}");
        let within = masses.iter().filter(|m| (*m - mass).abs() < 0.5 * width).count() as f32 / n as f32;
        assert!((within - 0.5).abs() < off, "{within} within half a width of {mass}");
    }
    let narrow = resonance(rng, 80.0, 0.0);
    assert!((narrow - 80.0).abs() < 1e-4);
}

#[test]
fn decay_angles_follow_the_helicities() {
    let rng = &mut Rng::new(5, 0);
    let n = 100_000;
    let mean = |values: &mut dyn FnMut() -> f32| (0..n).map(|_| values()).sum::<f32>() / n as f32;
    // Moments of 3/4 (1 - c^2) and of 3/8 (1 - c)^2.
    assert!((mean(&mut || longitudinal(rng).powi(2)) - 0.2).abs() < 0.005);
    assert!((mean(&mut || longitudinal(rng))).abs() < 0.006);
    assert!((mean(&mut || left_handed(rng)) + 0.5).abs() < 0.006);
    assert!((mean(&mut || left_handed(rng).powi(2)) - 0.4).abs() < 0.006);

    // The angle that is put in comes out: between the lepton in the W's frame and the W's flight in the top's frame.
    for _ in 0..200 {
        let top = FourVector::from_rapidity(172.5, 60.0 * rng.normal(), 60.0 * rng.normal(), 0.7 * rng.normal());
        let (w, b) = decay(&top, 172.5, 80.4, 4.7, isotropic(rng));
        let axis = helicity_axis(&top, &w, 80.4);
        let cos = rng.symmetric();
        let (lepton, _) = decay(&w, 80.4, 0.0, 0.0, direction_around(rng, axis, cos));
        let (l, away) = (lepton.boosted_to_rest_of(&w, 80.4), b.boosted_to_rest_of(&w, 80.4));
        let (l, away) = (l.direction(), away.direction());
        let seen = -(l[0] * away[0] + l[1] * away[1] + l[2] * away[2]);
        assert!((seen - cos).abs() < 1e-3, "{seen} for {cos}");
    }
}

#[test]
fn azimuths_agree_with_the_arc_tangent() {
    for step in -1_000..=1_000 {
        let (sin, cos) = (step as f32 * std::f32::consts::PI / 1_000.0).sin_cos();
        assert!((azimuth(3.0 * cos, 3.0 * sin) - sin.atan2(cos)).abs() < 5e-7);
    }
    assert_eq!(azimuth(0.0, 0.0), 0.0);
}

#[test]
fn missing_momentum_is_minus_the_measured_sum_when_nothing_is_soft_or_hidden() {
    let parameters = Parameters {
        soft_term: 0.0,
        stochastic: 0.0,
        constant: 0.0,
        noise: 0.0,
        jet_angle: 0.0,
        lepton_resolution: 0.0,
        light_scale: 1.0,
        b_scale: 1.0,
        b_neutrino: 0.0,
        // No parton is so soft or so far forward that it is not measured, but for a few.
        light_splitting: 0.0,
        b_splitting: 0.0,
        isr_rapidity: 0.2,
        ..Parameters::default()
    };
    let simulator = Simulator::with_parameters(6, parameters);
    let rng = &mut Rng::new(6, 0);
    let (mut hard, mut measured) = (HardEvent::default(), Measured::default());
    let (mut kept, mut equal) = (0, 0);
    while kept < 500 {
        if simulator.generator.draw(true, rng, &mut hard) && simulator.detector.measure(&hard, rng, &mut measured) {
            kept += 1;
            let off = (measured.missing.0 - hard.neutrino.x).hypot(measured.missing.1 - hard.neutrino.y);
            equal += usize::from(off < 0.01);
        }
    }
    assert!(equal > 480, "{equal} of {kept} events have the neutrino's momentum missing");
}

#[test]
fn events_pass_the_selection_and_carry_published_values() {
    let (labels, columns) = sample(7, 20_000);
    let parameters = Parameters::default();
    let signal = labels.iter().filter(|&&label| label == 1.0).count() as f64 / labels.len() as f64;
    assert!((signal - 0.529_92).abs() < 4.0 * 0.5 / (labels.len() as f64).sqrt(), "{signal}");
    assert!(labels.iter().all(|&label| label == 0.0 || label == 1.0));
    for row in 0..labels.len() {
        assert!(columns.iter().all(|column| column[row].is_finite()));
        assert!(columns[0][row] * LEPTON_UNIT >= 0.999_9 * parameters.lepton_threshold);
        assert!((columns[1][row] * LEPTON_ETA_UNIT).abs() <= 1.000_1 * parameters.lepton_eta);
        let mut tags = 0;
        let mut tagged = FourVector::default();
        for slot in 0..4 {
            let column = 5 + 4 * slot;
            let pt = columns[column][row] * JET_UNITS[slot];
            let eta = columns[column + 1][row] * JET_ETA_UNITS[slot];
            assert!(pt >= 0.999_9 * parameters.jet_threshold && eta.abs() <= 1.000_1 * parameters.jet_eta);
            let tag = columns[column + 3][row];
            assert!([0.0, TAG_UNITS[slot], 2.0 * TAG_UNITS[slot]].contains(&tag));
            let (sin, cos) = (columns[column + 2][row] * std::f32::consts::PI / 1.7435).sin_cos();
            if tag > 0.0 {
                tags += 1;
                tagged += FourVector::massless(pt * cos, pt * sin, eta);
            }
        }
        for column in [2, 4, 7, 11, 15, 19] {
            assert!(columns[column][row].abs() <= 1.743_501);
        }
        assert!(tags <= 2);
        if tags == 2 {
            // m_bb is that of the two tagged jets, as it is in the real events.
            let m_bb = columns[25][row] * MASS_UNITS[4];
            assert!((tagged.mass() - m_bb).abs() < 0.01 * m_bb + 0.1, "{} and {m_bb}", tagged.mass());
        }
    }
}

#[test]
fn events_depend_on_the_seed_alone_and_not_on_threads_or_count() {
    let in_pool = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| generate(11, 3_000))
    };
    let (one, three) = (in_pool(1), in_pool(3));
    assert_eq!(one.features.values(), three.features.values());
    assert_eq!(one.targets.values(), three.targets.values());
    assert_eq!(one.fingerprint, three.fingerprint);

    let shorter = generate(11, 700);
    for row in 0..700 {
        assert_eq!(shorter.targets.get(row, 0), one.targets.get(row, 0));
        for column in 0..28 {
            assert_eq!(shorter.features.get(row, column), one.features.get(row, column));
        }
    }
    // The padding of the last panel is zero.
    assert_eq!(shorter.features.values()[2 * 28 * CHUNK_EVENTS + 200], 0.0);
    assert!(shorter.simulated && shorter.name == NAME && shorter.fingerprint.len() == 64);
    assert_ne!(shorter.fingerprint, one.fingerprint);
    assert_ne!(generate(12, 700).features.values(), shorter.features.values());
    assert_eq!(generate(11, 0).features.rows(), 0);
}

#[test]
fn parameters_are_reached_by_name() {
    let mut parameters = Parameters::default();
    assert!(parameters.set("soft_term", 3.5) && !parameters.set("no such parameter", 1.0));
    assert_eq!(parameters.soft_term, 3.5);
    assert!(parameters.entries().contains(&("soft_term", 3.5)));
}

/// The largest difference between two empirical distribution functions; sorts its arguments.
fn kolmogorov_smirnov(a: &mut [f32], b: &mut [f32]) -> f64 {
    a.sort_by(f32::total_cmp);
    b.sort_by(f32::total_cmp);
    let (mut i, mut j, mut largest) = (0, 0, 0.0_f64);
    while i < a.len() && j < b.len() {
        let at = a[i].min(b[j]);
        i += a[i..].iter().take_while(|&&v| v <= at).count();
        j += b[j..].iter().take_while(|&&v| v <= at).count();
        largest = largest.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    largest
}

fn mean_and_sd(values: &[f32]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

/// The odd-numbered rows of the real sample: the parameters were fitted to the even ones.
/// tests/reference/higgs_sim_ks.py prints the same table from the same files.
#[test]
fn simulated_columns_are_distributed_as_the_real_ones_that_were_not_fitted() {
    let Some(path) = locate::test_file("higgs/higgs-35k.csv.gz") else { return };
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let real: Vec<Vec<f32>> = (text.lines().skip(1).step_by(2))
        .map(|line| line.split(',').map(|field| field.trim().parse().unwrap()).collect())
        .collect();
    let (labels, columns) = sample(42, 100_000);
    let mut distances = Vec::new();
    println!(
        "{:<26}{:<11}{:>6}{:>11}{:>11}{:>10}{:>11}",
        "column", "class", "KS", "mean real", "simulated", "sd real", "simulated"
    );
    for (column, name) in FEATURE_NAMES.iter().enumerate() {
        for (label, class) in [(1.0, "signal"), (0.0, "background")] {
            let mut a: Vec<f32> = real.iter().filter(|row| row[0] == label).map(|row| row[column + 1]).collect();
            let mut b: Vec<f32> =
                columns[column].iter().zip(&labels).filter(|(_, l)| **l == label).map(|(v, _)| *v).collect();
            let distance = kolmogorov_smirnov(&mut a, &mut b);
            let ((mean, sd), (sim_mean, sim_sd)) = (mean_and_sd(&a), mean_and_sd(&b));
            println!("{name:<26}{class:<11}{distance:>6.3}{mean:>11.3}{sim_mean:>11.3}{sd:>10.3}{sim_sd:>11.3}");
            distances.push(distance);
        }
    }
    distances.sort_by(f64::total_cmp);
    let (median, largest) = (distances[distances.len() / 2], distances[distances.len() - 1]);
    let mean = distances.iter().sum::<f64>() / distances.len() as f64;
    println!("KS distance: median {median:.3}, mean {mean:.3}, largest {largest:.3}");
    assert!(median <= 0.05 && largest <= 0.15, "median {median:.3}, largest {largest:.3}");
}
