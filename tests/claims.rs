//! Verdicts: a false claim fails, a coin flip is inconclusive, a true one holds; wrong verdicts are as rare as stated; mistakes
//! in an expectation are found before anything runs, with their place.

#[path = "support/program.rs"]
mod program;

use parsimony::Workbench;
use parsimony::claim::{Claim, Comparison, Ending, Expectation, LEVEL, Observation, Outcome, Subject, Verdict, judge};
use parsimony::experiment::Spec;
use program::Place;
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde_json::json;
use std::path::Path;

fn claim(expectations: &[&str]) -> Claim {
    let expectations = expectations.iter().map(|text| Expectation {
        place: "here".to_owned(),
        text: (*text).to_owned(),
        comparison: Comparison::parse(text).expect(text),
        why: None,
    });
    Claim { about: Some("any".to_owned()), expectations: expectations.collect(), ..Claim::default() }
}

/// A cell on the split of a fold.
fn subject(optimizer: &str, stochastic: bool, fold: usize, seed: u64) -> Subject {
    Subject::of_config(&json!({
        "dataset": {"name": "d", "label": "D", "simulated": false, "split": {"folds": {"count": 10, "fold": fold}}},
        "model": {"name": "m", "label": "m"}, "optimizer": {"name": optimizer, "label": optimizer},
        "hyperparameters": {}, "seed": seed, "stochastic": stochastic,
    }))
}

fn observation(
    optimizer: &str,
    stochastic: bool,
    fold: usize,
    seed: u64,
    values: &[(&'static str, f64)],
) -> Observation {
    Observation {
        subject: subject(optimizer, stochastic, fold, seed),
        values: values.iter().copied().collect(),
        ..Observation::default()
    }
}

fn only(verdict: Option<Verdict>) -> (Outcome, String) {
    let verdict = verdict.expect("there is an expectation");
    (verdict.outcome, verdict.datasets[0].expectations[0].lacks.join("; "))
}

fn normal(random: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(random)
}

/// Wrong verdicts among 200 repetitions of a comparison whose two sides are equal: any verdict but inconclusive is wrong.
fn wrong(text: &str, mut repetition: impl FnMut(&mut ChaCha8Rng) -> Vec<Observation>) -> usize {
    let claim = claim(&[text]);
    let wrong = |round: u64| {
        let cells = repetition(&mut ChaCha8Rng::seed_from_u64(round));
        let (outcome, lacks) = only(judge(&claim, &cells));
        assert_eq!(lacks, "", "{text}");
        outcome != Outcome::Inconclusive
    };
    let count = (0..200).map(wrong).filter(|wrong| *wrong).count();
    eprintln!("{text}: {count} wrong of 200");
    count
}

/// 5 per cent of 200 plus two binomial standard errors: 16.2.
fn most_wrong() -> usize {
    (200.0 * LEVEL + 2.0 * (200.0 * LEVEL * (1.0 - LEVEL)).sqrt()).floor() as usize
}

#[test]
fn wrong_verdicts_over_ten_seeds_are_as_rare_as_stated() {
    for aggregate in ["mean", "median"] {
        for (paired, text) in [
            (false, format!("{aggregate}(a.train_loss) <= {aggregate}(b.train_loss)")),
            (true, format!("{aggregate}(a.train_loss - b.train_loss) <= 0")),
        ] {
            let count = wrong(&text, |random| {
                let mut cells = Vec::new();
                for seed in 1..=10 {
                    let shared = if paired { 3.0 * normal(random) } else { 0.0 };
                    for optimizer in ["a", "b"] {
                        let loss = shared + normal(random);
                        cells.push(observation(optimizer, true, 0, seed, &[("train_loss", loss)]));
                    }
                }
                cells
            });
            assert!(count <= most_wrong(), "{text}: {count} of 200");
        }
    }
}

#[test]
fn wrong_verdicts_over_test_rows_are_as_rare_as_stated() {
    // Two deterministic methods that are right on 70 per cent of rows each, mostly on the same.
    let count = wrong("a.test_accuracy >= b.test_accuracy", |random| {
        let rows = 1500;
        let shared: Vec<f64> = (0..rows).map(|_| random.random_range(0.0..1.0)).collect();
        ["a", "b"]
            .map(|optimizer| {
                let correct: Vec<bool> = shared
                    .iter()
                    .map(|&shared| if random.random_bool(0.8) { shared < 0.7 } else { random.random_bool(0.7) })
                    .collect();
                let accuracy = correct.iter().filter(|c| **c).count() as f64 / rows as f64;
                let mut cell = observation(optimizer, false, 0, 1, &[("test_accuracy", accuracy)]);
                cell.row_correct = Some(correct);
                cell.row_losses = Some(vec![0.5; rows]);
                cell
            })
            .into()
    });
    assert!(count <= most_wrong(), "{count} of 200");
}

#[test]
fn wrong_verdicts_over_seeds_and_rows_together_are_as_rare_as_stated() {
    let text = "median(a.test_loss) <= median(b.test_loss)";
    let count = wrong(text, |random| {
        let rows = 400;
        let shared: Vec<f64> = (0..rows).map(|_| normal(random)).collect();
        // How rows differ between the two methods is common to all seeds.
        let own: [Vec<f64>; 2] = [0, 1].map(|_| (0..rows).map(|_| 0.5 * normal(random)).collect());
        let mut cells = Vec::new();
        for seed in 1..=10 {
            for (own, optimizer) in own.iter().zip(["a", "b"]) {
                let of_seed = 0.03 * normal(random);
                let losses: Vec<f32> = (0..rows).map(|row| (shared[row] + own[row] + of_seed) as f32).collect();
                let mean = losses.iter().map(|l| f64::from(*l)).sum::<f64>() / rows as f64;
                let mut cell = observation(optimizer, true, 0, seed, &[("test_loss", mean)]);
                cell.row_losses = Some(losses);
                cells.push(cell);
            }
        }
        cells
    });
    assert!(count <= most_wrong(), "{count} of 200");
}

#[test]
fn wrong_verdicts_over_ten_folds_are_as_rare_as_stated() {
    let count = wrong("median(a.train_seconds) < median(b.train_seconds)", |random| {
        let mut cells = Vec::new();
        for fold in 0..10 {
            let of_fold = 0.3 * normal(random);
            for optimizer in ["a", "b"] {
                let seconds = (of_fold + 0.2 * normal(random)).exp();
                cells.push(observation(optimizer, false, fold, 1, &[("train_seconds", seconds)]));
            }
        }
        cells
    });
    assert!(count <= most_wrong(), "{count} of 200");
}

/// A difference of two standard deviations is found by ten seeds, on either side.
#[test]
fn a_true_claim_holds_and_a_false_one_fails() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut cells = Vec::new();
    for seed in 1..=10 {
        cells.push(observation("a", true, 0, seed, &[("train_loss", normal(&mut random))]));
        cells.push(observation("b", true, 0, seed, &[("train_loss", 3.0 + normal(&mut random))]));
    }
    let outcome = |text: &str| only(judge(&claim(&[text]), &cells)).0;
    assert_eq!(outcome("median(a.train_loss) < median(b.train_loss)"), Outcome::Holds);
    assert_eq!(outcome("median(a.train_loss) <= median(b.train_loss) - 1"), Outcome::Holds);
    assert_eq!(outcome("median(a.train_loss) >= median(b.train_loss)"), Outcome::Fails);
    assert_eq!(outcome("median(a.train_loss) == median(b.train_loss)"), Outcome::Fails);
    assert_eq!(outcome("median(a.train_loss) >= median(b.train_loss) - 3"), Outcome::Inconclusive);
    // One that fails decides, whatever the others.
    let both = claim(&["median(a.train_loss) < median(b.train_loss)", "median(a.train_loss) > 1e9"]);
    assert_eq!(judge(&both, &cells).expect("a verdict").outcome, Outcome::Fails);
}

#[test]
fn what_was_not_reached_or_not_run_is_no_pass() {
    let text = "a.steps_to_target < b.steps_to_target";
    let verdict = |a: Observation, b: Observation| only(judge(&claim(&[text]), &[a, b]));
    let hit = |name: &str| observation(name, false, 0, 1, &[("steps_to_target", 5.0)]);
    let miss = |name: &str| observation(name, false, 0, 1, &[]);
    assert_eq!(verdict(hit("a"), miss("b")).0, Outcome::Holds);
    assert_eq!(verdict(miss("a"), hit("b")).0, Outcome::Fails);
    let (outcome, lacks) = verdict(miss("a"), miss("b"));
    assert!(outcome == Outcome::Inconclusive && lacks.contains("neither"), "{lacks}");
    let diverged = Observation { ending: Ending::Diverged, ..hit("a") };
    assert_eq!(verdict(diverged, hit("b")).0, Outcome::Fails, "a cell that diverged missed its target");
    for (ending, word) in
        [(Ending::Skipped, "skipped"), (Ending::Failed, "failed"), (Ending::Unfinished, "not finished")]
    {
        // A rival that crashed or still runs was not beaten.
        let (outcome, lacks) = verdict(hit("a"), Observation { ending, ..miss("b") });
        assert!(outcome == Outcome::Inconclusive && lacks.contains(word), "{lacks}");
    }

    let loss = |name: &str, values: &[(&'static str, f64)]| observation(name, false, 0, 1, values);
    let text = "a.train_loss < b.train_loss";
    let verdict = |a, b| only(judge(&claim(&[text]), &[a, b])).0;
    let known = || loss("a", &[("train_loss", 0.1)]);
    assert_eq!(verdict(known(), loss("b", &[("train_loss", 0.2)])), Outcome::Holds);
    assert_eq!(verdict(known(), loss("b", &[])), Outcome::Inconclusive, "no number never passes");
    assert_eq!(verdict(known(), loss("b", &[("train_loss", f64::NAN)])), Outcome::Inconclusive);
    let diverged = Observation { ending: Ending::Diverged, ..loss("b", &[("train_loss", 9.0)]) };
    assert_eq!(verdict(known(), diverged), Outcome::Inconclusive);
    // What is divided by zero is no number, and not one beyond every bound.
    let zero = loss("b", &[("train_loss", 0.0)]);
    let (outcome, lacks) = only(judge(&claim(&["a.train_loss / b.train_loss > 300"]), &[known(), zero]));
    assert!(outcome == Outcome::Inconclusive && lacks.contains("no number"), "{lacks}");
}

/// A cell that others have partners of is missing: the numbers that are there were not drawn at random.
#[test]
fn a_list_with_a_hole_settles_nothing() {
    let of = |optimizer: &'static str, value: f64, seeds: std::ops::Range<u64>| {
        seeds.map(move |seed| observation(optimizer, true, 0, seed, &[("steps", value)]))
    };
    let text = "mean(a.steps) < mean(b.steps)";
    let whole: Vec<_> = of("a", 1.0, 0..12).chain(of("b", 2.0, 0..12)).collect();
    assert_eq!(only(judge(&claim(&[text]), &whole)).0, Outcome::Holds);
    let (outcome, lacks) = only(judge(&claim(&[text]), &whole[..23]));
    assert!(outcome == Outcome::Inconclusive && lacks.contains("b lacks cells"), "{lacks}");
}

/// Seconds that ended a cell which draws nothing make its counts as noisy as a time.
#[test]
fn what_the_clock_cut_off_is_not_exact() {
    let cell = |optimizer: &str, ending: Ending| Observation {
        ending,
        ..observation(optimizer, false, 0, 1, &[("train_loss", if optimizer == "a" { 0.1 } else { 0.2 })])
    };
    let verdict = |ending| {
        only(judge(&claim(&["a.train_loss < b.train_loss"]), &[cell("a", ending), cell("b", Ending::Finished)]))
    };
    assert_eq!(verdict(Ending::Finished).0, Outcome::Holds);
    let (outcome, lacks) = verdict(Ending::TimedOut);
    assert!(outcome == Outcome::Inconclusive && lacks.contains("seconds ended"), "{lacks}");
    let exact = "a.steps_to_target < 9";
    let reached =
        Observation { ending: Ending::TimedOut, ..observation("a", false, 0, 1, &[("steps_to_target", 5.0)]) };
    assert_eq!(only(judge(&claim(&[exact]), &[reached])).0, Outcome::Holds, "it was there before");
}

/// Rows of a test set, each right or wrong for either method.
fn classified(split: &serde_json::Value, optimizer: &str, correct: Vec<bool>) -> Observation {
    let accuracy = correct.iter().filter(|c| **c).count() as f64 / correct.len() as f64;
    let mut cell = observation(optimizer, false, 0, 1, &[("test_accuracy", accuracy)]);
    cell.subject.split = split.to_string();
    cell.row_losses = Some(vec![0.5; correct.len()]);
    cell.row_correct = Some(correct);
    cell
}

/// What was never seen among few rows may still be so: drawing them again cannot tell.
#[test]
fn outcomes_that_were_not_seen_are_not_ruled_out() {
    let split = json!({"last": {"test": 50}});
    let of = |optimizer: &str, wrong: usize, rows: usize| {
        classified(&split, optimizer, (0..rows).map(|row| row >= wrong).collect())
    };
    let verdict = |text: &str, cells: &[Observation]| only(judge(&claim(&[text]), cells)).0;
    assert_eq!(verdict("a.test_accuracy >= 0.97", &[of("a", 0, 50)]), Outcome::Inconclusive, "50 of 50");
    assert_eq!(verdict("a.test_accuracy >= 0.97", &[of("a", 0, 5000)]), Outcome::Holds);
    // Better on the only three rows on which they differ: as a coin that fell thrice on one side.
    let text = "a.test_accuracy >= b.test_accuracy";
    assert_eq!(verdict(text, &[of("a", 0, 1000), of("b", 3, 1000)]), Outcome::Inconclusive);
    assert_eq!(verdict(text, &[of("a", 0, 1000), of("b", 30, 1000)]), Outcome::Holds);
    assert_eq!(
        verdict("a.test_accuracy >= b.test_accuracy - 0.01", &[of("a", 5, 1000), of("b", 5, 1000)]),
        Outcome::Holds
    );
}

#[test]
fn wrong_verdicts_on_few_differing_rows_are_as_rare_as_stated() {
    // Two methods that differ on one row in two hundred, either being right as often as the other.
    let split = json!({"last": {"test": 1000}});
    let count = wrong("a.test_accuracy >= b.test_accuracy", |random| {
        let (mut one, mut other) = (vec![true; 1000], vec![true; 1000]);
        for row in 0..1000 {
            if random.random_bool(0.005) {
                let which = if random.random_bool(0.5) { &mut one } else { &mut other };
                which[row] = false;
            }
        }
        vec![classified(&split, "a", one), classified(&split, "b", other)]
    });
    assert!(count <= most_wrong(), "{count} of 200");
}

/// Ten splits that test on the same rows are not ten test sets.
#[test]
fn wrong_verdicts_over_splits_with_common_test_rows_are_as_rare_as_stated() {
    let count = wrong("mean(a.test_accuracy) >= mean(b.test_accuracy)", |random| {
        let rows = 300;
        let right: [Vec<bool>; 2] = [0, 1].map(|_| (0..rows).map(|_| random.random_bool(0.7)).collect());
        let mut cells = Vec::new();
        for first in 0..10 {
            // The rows to train on differ, and with them a few outcomes.
            let split = json!({"ranges": {"train": [first, 1000], "validation": [1000, 1400], "test": [1400, 1700]}});
            for (optimizer, right) in ["a", "b"].into_iter().zip(&right) {
                let correct = right.iter().map(|right| *right != random.random_bool(0.02)).collect();
                cells.push(classified(&split, optimizer, correct));
            }
        }
        cells
    });
    assert!(count <= most_wrong(), "{count} of 200");
}

#[test]
fn too_few_seeds_or_times_settle_nothing() {
    let few = |stochastic: bool, metric: &'static str| -> Vec<Observation> {
        let seeds = if stochastic { 5 } else { 1 };
        let cells = |optimizer: &'static str, value: f64| {
            (1..=seeds).map(move |seed| observation(optimizer, stochastic, 0, seed, &[(metric, value)]))
        };
        cells("a", 1.0).chain(cells("b", 2.0)).collect()
    };
    let (outcome, lacks) = only(judge(&claim(&["mean(a.steps) < mean(b.steps)"]), &few(true, "steps")));
    assert!(outcome == Outcome::Inconclusive && lacks.contains("5 seeds"), "{lacks}");
    assert_eq!(only(judge(&claim(&["a.steps < b.steps"]), &few(false, "steps"))).0, Outcome::Holds);
    let (outcome, lacks) = only(judge(&claim(&["a.train_seconds < b.train_seconds"]), &few(false, "train_seconds")));
    assert!(outcome == Outcome::Inconclusive && lacks.contains("measured in 1 split"), "{lacks}");
    let auc = few(false, "test_auc");
    assert_eq!(only(judge(&claim(&["a.test_auc < b.test_auc"]), &auc)).0, Outcome::Inconclusive);
    let parameters = few(true, "parameters_total");
    assert_eq!(only(judge(&claim(&["b.parameters_total / a.parameters_total >= 2"]), &parameters)).0, Outcome::Holds);
}

#[test]
fn simulated_data_settle_only_what_is_about_them() {
    let mut cell = observation("a", false, 0, 1, &[("steps", 1.0)]);
    cell.subject.simulated = true;
    cell.subject.dataset = ["D (simulated)".into(), "d".into()];
    let judged = |about: Option<&str>| {
        let claim = Claim { about: about.map(str::to_owned), ..claim(&["a.steps < 2"]) };
        judge(&claim, std::slice::from_ref(&cell)).expect("a verdict")
    };
    let verdict = judged(None);
    assert_eq!((verdict.outcome, verdict.datasets[0].outcome), (Outcome::Inconclusive, Outcome::Holds));
    assert!(verdict.line().contains("simulated data do not settle it"), "{}", verdict.line());
    assert!(verdict.line().contains("holds on D (simulated)"), "{}", verdict.line());
    assert_eq!(judged(Some("higgs")).outcome, Outcome::Inconclusive);
    assert_eq!(judged(Some("any")).outcome, Outcome::Holds);
    assert_eq!(judged(Some("d")).line(), "holds on D (simulated)");
    // And it survives its file.
    let again: Verdict = serde_json::from_str(&serde_json::to_string(&verdict).expect("JSON")).expect("the same");
    assert_eq!(again, verdict);
}

/// An experiment on simulated events with these expectations.
fn experiment(expectations: &str) -> String {
    format!(
        r#"
        question = "Is it so?"
        claim = "It is."
        about = "any"
        seeds = 10
        threads = 1
        budget = "2 passes"
        target = {{ metric = "validation_accuracy", value = 0.6 }}
        [[dataset]]
        name = "higgs-sim"
        rows = 4000
        [[model]]
        name = "logistic"
        [[optimizer]]
        name = "irls"
        budget = "20 passes"
        [[optimizer]]
        name = "sgd"
        learning_rate = 1e-3
        batch_size = 500
        [[optimizer]]
        name = "sgd"
        label = "same"
        learning_rate = 1e-3
        batch_size = 490
        {expectations}
        "#
    )
}

fn expect(text: &str) -> String {
    format!("[[expect]]\nthat = {text:?}\n")
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    let place = Place::new();
    let refused = |text: &str| {
        let file = place.write("x.toml", experiment(&expect(text)));
        let message = place.fail(2, &["run", file.to_str().expect("a path")]);
        assert!(!place.path().join("runs").exists(), "nothing has run");
        assert!(message.contains("x.toml, line ") && message.contains("character "), "{message}");
        message
    };
    assert!(refused("median(irls.test_acuracy) > 0.5").contains("did you mean `test_accuracy`"));
    assert!(refused("irls.test_accuracy >= median(sgdd.test_accuracy)").contains("called `sgdd`"));
    assert!(refused("irls.test_accuracy >= same.test_accuracy").contains("list of 10 values"));
    assert!(refused("irls.test_accuracy").contains("comparison takes"));
    assert!(refused("max(sgd.test_accuracy) < 0.9").contains("median(...)"));
    assert!(refused("irls.left_out_loss < 0.9").contains("inspect = true"));
    let many = format!("irls.steps{} > 2", " + 1".repeat(50_000));
    assert!(refused(&many).contains("several expectations"));
    let spec = |text: &str| Spec::parse(text, Path::new("x.toml"), &Workbench::standard());
    let error = spec(&experiment("[[expect]]\nwhy = \"so\"")).expect_err("no comparison").to_string();
    assert!(error.contains("`that` is missing"), "{error}");
    let error = spec(&experiment("").replace("\"any\"", "\"higs\"")).expect_err("no dataset").to_string();
    assert!(error.contains("higgs"), "{error}");
    let without_target: String = experiment(&expect("irls.time_to_target < 1"))
        .lines()
        .filter(|line| !line.contains("target ="))
        .collect::<Vec<_>>()
        .join("\n");
    let file = place.write("y.toml", without_target);
    assert!(place.fail(2, &["run", file.to_str().expect("a path")]).contains("add a target"));
}

/// A small experiment whose one expectation is about what IRLS takes.
fn small(expectation: &str) -> String {
    format!(
        "claim = \"So <it> is.\"\nabout = \"any\"\nthreads = 1\nbudget = \"20 passes\"\n\
         target = {{ metric = \"validation_accuracy\", value = 0.5 }}\n\
         [[dataset]]\nname = \"higgs-sim\"\nrows = 2000\n[[model]]\nname = \"logistic\"\n\
         [[optimizer]]\nname = \"irls\"\n{}",
        expect(expectation)
    )
}

#[test]
fn verification_runs_what_is_stale_and_its_exit_code_tells() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("claims")).expect("a folder");
    let verify = |more: &[&str]| {
        let arguments = ["claims", "verify", "--quiet", "--experiments", "claims"];
        let output = place.output(&[&arguments, more].concat());
        (
            output.status.code(),
            String::from_utf8(output.stdout).expect("UTF-8"),
            String::from_utf8(output.stderr).expect("UTF-8"),
        )
    };
    let list = || place.succeed(&["claims", "--experiments", "claims"]);
    place.write("claims/one.toml", small("irls.parameters_total == 29"));
    assert!(list().contains("not run"));
    assert_eq!(verify(&[]).0, Some(0));
    assert!(list().contains("holds on higgs-sim (simulated)") && !list().contains("earlier version"));

    // JSON is JSON, and a comment makes no other experiment; a number does, before it is run again and not after.
    let (code, text, _) = verify(&["--format", "json"]);
    let ledger: serde_json::Value = serde_json::from_str(&text).expect("JSON and nothing else");
    assert_eq!(
        (code, &ledger[0]["verdict"]["outcome"], &ledger[0]["stale"]),
        (Some(0), &json!("holds"), &json!(false))
    );
    place.write("claims/one.toml", format!("# The same.\n{}", small("irls.parameters_total == 29")));
    assert!(!list().contains("earlier version"));
    place.write("claims/one.toml", small("irls.parameters_total == 30"));
    assert!(list().contains("earlier version"));
    // As where its run was interrupted: the file is there, the verdict is still the old one.
    let run = place.path().join("runs/one");
    std::fs::copy(place.path().join("claims/one.toml"), run.join("experiment.toml")).expect("a file");
    assert!(list().contains("earlier version"));
    assert_eq!(verify(&[]).0, Some(1), "it fails");
    assert!(list().contains("fails on") && !list().contains("earlier version"));

    // None fails, one is inconclusive: the times of one fit.
    place.write("claims/one.toml", small("irls.train_seconds < 100"));
    assert_eq!(verify(&[]).0, Some(5));
    let markdown = place.succeed(&["claims", "--experiments", "claims", "--format", "markdown"]);
    assert!(markdown.contains("So &lt;it> is.") && markdown.contains("measured in 1 split"), "{markdown}");

    // One that cannot be run keeps nobody from the others, and is not passed over.
    place.write("claims/one.toml", small("irls.parameters_total == 29"));
    place.write("claims/lost.csv", "a,b\nx,1\n");
    place.write(
        "claims/lost.toml",
        small("irls.steps > 0").replace("name = \"higgs-sim\"\nrows = 2000", "path = \"lost.csv\"\ntarget = \"b\""),
    );
    let (code, text, said) = verify(&[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("holds on") && said.contains("lost"), "{text}{said}");
    // A mistake in any file is found before the first runs, and named.
    place.write("claims/lost.toml", small("irls.stepps > 0"));
    let (code, _, said) = verify(&[]);
    assert!(code == Some(2) && said.contains("lost.toml, line") && said.contains("stepps"), "{said}");
    place.write("claims/lost.toml", "claim = ");
    assert!(place.fail(2, &["claims", "--experiments", "claims"]).contains("lost.toml"));
    assert!(place.fail(2, &["claims", "verify", "nothing"]).contains("no claim `nothing`"));
}

/// A run that stands still half way is not judged by the cells that happen to be there.
#[test]
fn a_report_of_an_unfinished_run_settles_nothing() {
    let place = Place::new();
    place.write("x.toml", experiment(&expect("mean(sgd.test_loss) > 0.1")));
    place.succeed(&["run", "x.toml", "--quiet"]);
    let cells = place.cells("x");
    let last = cells
        .iter()
        .filter(|cell| cell["optimizer"] == "sgd")
        .max_by_key(|cell| cell["seed"].as_u64())
        .expect("a cell");
    let folder = place.path().join("runs/x/cells").join(last["cell"].as_str().expect("an ID"));
    std::fs::remove_dir_all(folder).expect("a folder");
    place.succeed(&["report", "runs/x"]);
    let page = std::fs::read_to_string(place.path().join("plots/x/report.html")).expect("a page");
    assert!(page.contains("a cell of sgd has no numbers: it is not finished"), "the verdict says so");
}

#[test]
fn two_runs_are_compared_pair_by_pair() {
    let place = Place::new();
    let text = experiment("");
    place.write("one.toml", &text);
    // The same with a smaller step, and a target that is not reached.
    place.write(
        "two.toml",
        text.replace(
            "learning_rate = 1e-3\n        batch_size = 500",
            "learning_rate = 1e-5\n        batch_size = 500",
        ),
    );
    for name in ["one", "two"] {
        place.succeed(&["run", &format!("{name}.toml"), "--quiet"]);
    }
    let said = place.succeed(&["compare", "runs/one", "runs/one"]);
    assert!(said.contains("environment: the same") && said.contains("configuration: the same"), "{said}");
    assert!(said.contains("test loss") && said.contains("+0"), "{said}");
    let said = place.succeed(&["compare", "runs/one", "runs/two"]);
    assert!(said.contains("hyperparameters.learning_rate: 0.001 | "), "{said}");
    let message = place.fail(2, &["compare", "runs/one", "runs/three"]);
    assert!(message.contains("runs/three"), "{message}");
}

#[test]
fn a_run_ends_with_the_verdict_of_its_claim() {
    let place = Place::new();
    let expectations = [
        "irls.test_loss <= mean(sgd.test_loss) - 0.01",
        "irls.parameters_total == 29",
        "mean(sgd.test_accuracy) >= mean(same.test_accuracy)",
        "mean(sgd.test_loss) <= irls.test_loss",
        "irls.time_to_target < mean(sgd.time_to_target)",
    ];
    let text = experiment(&expectations.map(expect).concat());
    place.write("x.toml", text);
    let output = place.output(&["run", "x.toml", "--quiet"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("fails on higgs-sim (simulated)"), "{said}");

    let verdict: Verdict =
        serde_json::from_slice(&std::fs::read(place.path().join("runs/x/verdict.json")).expect("a file"))
            .expect("JSON");
    let outcomes: Vec<_> = verdict.datasets[0].expectations.iter().map(|e| (e.outcome, e.lacks.clone())).collect();
    assert_eq!(outcomes[0], (Outcome::Holds, vec![]));
    assert_eq!(outcomes[1], (Outcome::Holds, vec![]));
    assert_eq!(outcomes[2].0, Outcome::Inconclusive, "{:?}", verdict.datasets[0].expectations[2]);
    assert_eq!(outcomes[3], (Outcome::Fails, vec![]));
    assert_eq!(outcomes[4].0, Outcome::Inconclusive, "times of a single fit");

    // The rows are those that the summary's means are over.
    for cell in place.cells("x") {
        let folder = place.path().join("runs/x/cells").join(cell["cell"].as_str().expect("an ID"));
        let file = std::fs::File::open(folder.join("test_rows.parquet")).expect("a file");
        let frame = polars::prelude::SerReader::new(file);
        let frame: polars::prelude::ParquetReader<_> = frame;
        let frame = polars::prelude::SerReader::finish(frame).expect("Parquet");
        let loss: Vec<f64> =
            frame.column("loss").expect("a column").f32().expect("f32").iter().flatten().map(f64::from).collect();
        let right = frame.column("correct").expect("a column").bool().expect("bool").iter().flatten().filter(|c| *c);
        let share = right.count() as f64 / loss.len() as f64;
        let number = |key: &str| cell[key].as_f64().expect(key);
        assert!((share - number("test_accuracy")).abs() < 1e-12);
        assert!((loss.iter().sum::<f64>() / loss.len() as f64 - number("test_loss")).abs() < 1e-6);
    }
}

#[test]
fn shapes_are_counted_beside_cells_and_without_any() {
    let place = Place::new();
    let output = place.output(&["run", "one-point-six-trillion", "--quiet"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("verdict: holds on shapes alone"), "{said}");
    assert!(!said.contains("inconclusive"), "{said}");

    let shape = "\n[[shape]]\npreset = \"switch-c\"\nlabel = \"giant\"\nprecision = \"bf16\"\n";
    place.write(
        "x.toml",
        experiment(&format!("{shape}{}", expect("giant.parameters_total / irls.parameters_total > 1e10"))),
    );
    let output = place.output(&["run", "x.toml", "--quiet"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("holds on higgs-sim (simulated)"), "{said}");

    for (wrong, told) in [
        (shape.replace("switch-c", "switch-d"), "did you mean `switch-c`?"),
        (shape.replace("bf16", "f8"), "\"bf16\""),
        (shape.replace("switch-c", "t5-base") + "experts = 3\n", "no Switch layer"),
    ] {
        place.write("y.toml", experiment(&wrong));
        let message = place.fail(2, &["run", "y.toml"]);
        assert!(message.contains(told), "{message}");
    }
}
