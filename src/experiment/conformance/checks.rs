//! The checks, each a function from an optimizer on its problems to what was seen or what is wrong.

use super::drive::{Driver, Ending, Snapshot};
use super::faulty::Faulty;
use super::problems::{Case, smallest_objective};
use super::{Finding, Subject, Variant};
use crate::error::Result as Outcome;
use crate::optim::{OptimizerEntry, Promises, Size, StateVisitor, StateWriter};
use crate::oracle::{Problem, Search, Setting, SettingRange, Vector};
use std::collections::BTreeSet;

/// Steps after which most of what can go wrong has gone wrong.
const STEPS: usize = 8;

/// Takes a check through all problems and settings; a complaint gets their names.
fn throughout(
    subject: &Subject<'_>,
    cases: &[Case],
    mut check: impl FnMut(&Case, &Variant) -> Result<(), String>,
) -> Result<(), String> {
    for case in cases {
        for variant in &subject.variants {
            check(case, variant).map_err(|wrong| format!("on {}, under {}: {wrong}", case.name, variant.name))?;
        }
    }
    Ok(())
}

/// What was looked at, in words.
fn looked_at(subject: &Subject<'_>, cases: &[Case]) -> String {
    let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
    let variants = match subject.variants.len() {
        1 => "the defaults".to_owned(),
        count => format!("the defaults and {} variations", count - 1),
    };
    format!("{} steps on {}, under {variants}", STEPS, names.join(" and "))
}

fn start<'p>(subject: &Subject<'_>, case: &'p Case, variant: &Variant, seed: u64) -> Result<Driver<'p>, String> {
    Driver::start(subject.entry, &variant.settings, problem(case), seed).map_err(|error| format!("not built: {error}"))
}

fn problem(case: &Case) -> &dyn Problem {
    &*case.model
}

fn words<T>(result: Outcome<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// Every setting is documented, with a range and a default within it.
pub fn settings(entry: &OptimizerEntry) -> Finding {
    for (what, text) in [("summary", entry.summary), ("paper", entry.paper)] {
        if text.trim().is_empty() {
            return Err(format!("it has no {what}"));
        }
    }
    if entry.needs.is_empty() {
        return Err("it declares no capability, so it can ask for nothing".into());
    }
    let distinct: BTreeSet<_> = entry.needs.iter().collect();
    if distinct.len() < entry.needs.len() {
        return Err("it declares a capability twice".into());
    }
    let mut names = BTreeSet::new();
    for setting in entry.settings {
        if !names.insert(setting.name) {
            return Err(format!("`{}` is declared twice", setting.name));
        }
        documented(setting).map_err(|wrong| format!("`{}`: {wrong}", setting.name))?;
    }
    let count = match entry.settings.len() {
        0 => return Ok(Ok("it has none".into())),
        1 => "1 setting".to_owned(),
        count => format!("{count} settings"),
    };
    let searched = entry.settings.iter().filter(|setting| setting.search.is_some()).count();
    Ok(Ok(format!("{count}, each with its meaning, a range and a default within it; `tune` searches {searched}")))
}

fn documented(setting: &Setting) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if setting.name.is_empty() || !setting.name.chars().all(is_plain) {
        return Err("a name is made of small letters, digits and underscores".into());
    }
    if setting.doc.trim().is_empty() {
        return Err("nothing says what it does".into());
    }
    let is_ordered = match setting.range {
        SettingRange::Real(low, high) => low < high,
        SettingRange::Whole(low, high) => 0 <= low && low < high,
        SettingRange::Choice(words) => !words.is_empty(),
        SettingRange::Switch | SettingRange::Widths => true,
    };
    if !is_ordered {
        return Err("its range is empty, or lets a whole number be negative".into());
    }
    let parses = match setting.range {
        SettingRange::Real(..) => setting.default.parse::<f64>().is_ok(),
        SettingRange::Whole(..) => setting.default.parse::<i64>().is_ok(),
        SettingRange::Switch => matches!(setting.default, "true" | "false"),
        SettingRange::Choice(_) | SettingRange::Widths => true,
    };
    if !parses || setting.check(&setting.default_value()).is_none() {
        return Err(format!("its default {} is not {}", setting.default, setting.accepts()));
    }
    match (setting.search, setting.range) {
        (None, _) | (Some(Search::Every), SettingRange::Choice(_) | SettingRange::Switch) => Ok(()),
        (Some(Search::Between(from, to)), SettingRange::Real(low, high)) if low <= from && from < to && to <= high => {
            positive(setting, from)
        }
        (Some(Search::Between(from, to)), SettingRange::Whole(low, high))
            if low as f64 <= from && from < to && to <= high as f64 =>
        {
            positive(setting, from)
        }
        _ => Err("what `tune` would search is not within its range".into()),
    }
}

fn positive(setting: &Setting, from: f64) -> Result<(), String> {
    if setting.logarithmic && from <= 0.0 {
        return Err("a logarithmic search begins above zero".into());
    }
    Ok(())
}

/// Only declared capabilities are asked for, even where a refusal would be swallowed.
pub fn capabilities(subject: &Subject<'_>) -> Finding {
    throughout(subject, &subject.small, |case, variant| {
        let mut driver = start(subject, case, variant, 1)?;
        driver.steps(STEPS);
        match driver.oracle.undeclared().first() {
            Some(capability) => Err(format!("it asked for the {capability}, which it does not declare")),
            None => Ok(()),
        }
    })?;
    let declared: Vec<_> = subject.entry.needs.iter().map(ToString::to_string).collect();
    Ok(Ok(format!("asked for nothing beyond {} in {}", declared.join(", "), looked_at(subject, &subject.small))))
}

/// The same seed gives the same bits, whatever the number of threads.
pub fn determinism(subject: &Subject<'_>) -> Finding {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| e.to_string());
    let pools = [pool(1)?, pool(1)?, pool(2)?];
    throughout(subject, &subject.cases, |case, variant| {
        let (entry, settings, problem) = (subject.entry, &variant.settings, problem(case));
        let run = || -> Outcome<Vec<Snapshot>> {
            let mut driver = Driver::start(entry, settings, problem, 1)?;
            let step = |_| {
                driver.step();
                driver.snapshot()
            };
            Ok((0..STEPS).map(step).collect())
        };
        let runs = pools.iter().map(|pool| words(pool.install(run))).collect::<Result<Vec<_>, _>>()?;
        for (other, how) in [(1, "run again"), (2, "with 2 threads")] {
            if let Some((step, what)) = first_difference(&runs[0], &runs[other]) {
                return Err(format!("{how}, {what} differ from those with 1 thread after step {step}"));
            }
        }
        Ok(())
    })?;
    Ok(Ok(format!("the same bits again, with 1 and with 2 threads: {}", looked_at(subject, &subject.cases))))
}

fn first_difference(one: &[Snapshot], other: &[Snapshot]) -> Option<(usize, String)> {
    one.iter().zip(other).enumerate().find_map(|(index, (one, other))| Some((index + 1, one.difference(other)?)))
}

/// Another seed gives other numbers exactly where random draws are declared.
pub fn seed(subject: &Subject<'_>) -> Finding {
    let mut drawn = None;
    throughout(subject, &subject.small, |case, variant| {
        let mut one = start(subject, case, variant, 1)?;
        let mut other = start(subject, case, variant, 2)?;
        one.steps(STEPS);
        other.steps(STEPS);
        let Some(what) = one.snapshot().difference(&other.snapshot()) else { return Ok(()) };
        if !subject.entry.stochastic {
            return Err(format!("it says that it draws nothing, yet from one start seeds 1 and 2 differ in {what}"));
        }
        drawn.get_or_insert_with(|| variant.name.clone());
        Ok(())
    })?;
    match (subject.entry.stochastic, drawn) {
        (true, Some(variant)) => Ok(Ok(format!("from one start, seeds 1 and 2 part under {variant}"))),
        (true, None) => Err(format!(
            "it says that it draws random numbers, yet from one start seeds 1 and 2 give the same bits: {}",
            looked_at(subject, &subject.small)
        )),
        (false, _) => Ok(Ok("draws nothing, as it says: from one start, seeds 1 and 2 give the same bits".into())),
    }
}

/// Going on from a checkpoint gives the same bits as never having stopped.
pub fn resume(subject: &Subject<'_>) -> Finding {
    let folder = tempfile::tempdir().map_err(|error| format!("no folder for checkpoints: {error}"))?;
    let path = folder.path().join("checkpoint.safetensors");
    throughout(subject, &subject.small, |case, variant| {
        let mut whole = start(subject, case, variant, 1)?;
        whole.steps(STEPS);
        let whole = whole.snapshot();
        for cut in [1, STEPS / 2] {
            let mut before = start(subject, case, variant, 1)?;
            before.steps(cut);
            if before.ending.is_some() {
                break;
            }
            words(before.save(&path))?;
            let mut after = start(subject, case, variant, 1)?;
            words(Driver::saved(&path).and_then(|checkpoint| after.restore(checkpoint)))?;
            after.steps(STEPS - cut);
            if let Some(what) = whole.difference(&after.snapshot()) {
                return Err(format!(
                    "stopped after step {cut} and resumed, {what} differ by step {STEPS}: something that outlives a step \
                     is not shown to `visit_state`, or not put back by it"
                ));
            }
        }
        Ok(())
    })?;
    Ok(Ok(format!("the same bits when stopped after 1 and {} of {}", STEPS / 2, looked_at(subject, &subject.small))))
}

/// Notes name, numbers and bytes of every part of a state.
#[derive(Default)]
struct Census {
    parts: Vec<(String, usize, u64)>,
}

impl StateVisitor for Census {
    fn vector(&mut self, name: &str, value: &mut Vector) {
        self.parts.push((name.to_owned(), value.len(), value.bytes()));
    }
    fn vectors(&mut self, name: &str, values: &mut Vec<Vector>) {
        let numbers = values.iter().map(Vector::len).sum();
        self.parts.push((name.to_owned(), numbers, values.iter().map(Vector::bytes).sum()));
    }
    fn numbers(&mut self, name: &str, value: &mut Vec<f64>) {
        self.parts.push((name.to_owned(), value.len(), (value.len() * size_of::<f64>()) as u64));
    }
}

/// The bytes that are reported are those of the state that a checkpoint holds, and no state is hidden from it.
pub fn state_bytes(subject: &Subject<'_>) -> Finding {
    let folder = tempfile::tempdir().map_err(|error| format!("no folder for checkpoints: {error}"))?;
    let path = folder.path().join("checkpoint.safetensors");
    let mut most = 0;
    throughout(subject, &subject.small, |case, variant| {
        let mut driver = start(subject, case, variant, 1)?;
        driver.steps(STEPS / 2);
        let bytes = honest_bytes(&mut driver, &path)?;
        most = most.max(bytes);
        Ok(())
    })?;
    if let Err(wrong) = resume(subject) {
        return Err(format!("up to {most} bytes are shown, but they are not all of the state ({wrong})"));
    }
    Ok(Ok(format!("up to {most} bytes, as many as a checkpoint holds; looking at them changes nothing")))
}

fn honest_bytes(driver: &mut Driver<'_>, path: &std::path::Path) -> Result<u64, String> {
    let (before, mut census, mut writer) = (driver.snapshot(), Census::default(), StateWriter::default());
    driver.optimizer.visit_state(&mut census);
    driver.optimizer.visit_state(&mut writer);
    if let Some(what) = before.difference(&driver.snapshot()) {
        return Err(format!("a visit of its state changes {what}"));
    }
    let mut names = BTreeSet::new();
    if let Some((name, _, bytes)) = census.parts.iter().find(|(name, ..)| !names.insert(name.as_str())) {
        return Err(format!(
            "its state shows `{name}` twice: {bytes} bytes are counted that a checkpoint does not hold"
        ));
    }
    words(driver.save(path))?;
    let held = words(Driver::saved(path))?.state;
    for (name, numbers, _) in &census.parts {
        let found = held.get(name).map_or(0, Vec::len);
        if found != *numbers {
            return Err(format!("its state shows {numbers} numbers as `{name}`, of which a checkpoint holds {found}"));
        }
    }
    let counted = census.parts.iter().map(|(_, _, bytes)| bytes).sum::<u64>();
    if counted != writer.bytes() {
        return Err(format!("two visits of one state count {counted} and {} bytes", writer.bytes()));
    }
    Ok(counted)
}

fn promises(driver: &Driver<'_>, case: &Case) -> Promises {
    let problem = problem(case);
    let (rows, layout, gradient_flops) = (problem.rows(), problem.layout(), problem.gradient_flops());
    driver.optimizer.promises(&Size { rows, layout, gradient_flops })
}

/// Sums of counted operations are rounded: a share of this much is no more work.
const ROUNDING: f64 = 1e-6;

/// No step does more work than is promised.
pub fn step_cost(subject: &Subject<'_>) -> Finding {
    let (mut most, mut promised): (f64, Option<f64>) = (0.0, None);
    throughout(subject, &subject.small, |case, variant| {
        let mut driver = start(subject, case, variant, 1)?;
        let promise = promises(&driver, case).step_gradients;
        promised = promised.or(promise);
        for step in 1..=3 * STEPS {
            let before = driver.oracle.gradient_equivalents();
            driver.step();
            let cost = driver.oracle.gradient_equivalents() - before;
            most = most.max(cost);
            if let Some(promise) = promise.filter(|promise| cost > promise * (1.0 + ROUNDING)) {
                return Err(format!(
                    "step {step} did the work of {cost:.4} gradients over all rows; {promise:.4} are promised"
                ));
            }
        }
        Ok(())
    })?;
    let seen = format!("at most {most:.3} gradients over all rows a step");
    match promised {
        Some(_) => Ok(Ok(format!("{seen}, within what it promises"))),
        None => Ok(Err(format!("it promises no bound (`Optimizer::promises`); {seen} were seen"))),
    }
}

/// Limits of the search for a convex optimum.
const MOST_STEPS: u64 = 20_000;
const MOST_PASSES: f64 = 20_000.0;

/// What `f32` sums resolve of an objective.
const SINGLE_RESOLUTION: f64 = 1e-6;

/// With its defaults it comes as near the optimum of a small convex problem as it promises.
pub fn convex_optimum(subject: &Subject<'_>) -> Finding {
    let Some(case) = subject.small.iter().find(|case| case.convex) else {
        let names: Vec<_> = subject.small.iter().map(|case| case.name.as_str()).collect();
        return Ok(Err(format!("none of the problems that it can run on ({}) is convex", names.join(", "))));
    };
    let Some(optimum) = smallest_objective(problem(case)) else {
        return Ok(Err(format!("{} has no gradient to find its optimum by", case.name)));
    };
    let mut driver = start(subject, case, &subject.variants[0], 1)?;
    let floor = if case.single_precision { SINGLE_RESOLUTION } else { 0.0 };
    let promised = promises(&driver, case).convex_gap.max(floor);
    let first = words(case.model.objective(&driver.parameters))?.0;
    let (mut smallest, mut next) = (f64::INFINITY, 1);
    while driver.oracle.step() < MOST_STEPS && driver.oracle.data_passes() < MOST_PASSES {
        driver.step();
        if driver.ending.is_none() && driver.oracle.step() < next {
            continue;
        }
        next += next.div_ceil(4);
        let objective = words(case.model.objective(driver.optimizer.reported(&driver.parameters)))?.0;
        let gap = (objective - optimum) / (first - optimum);
        smallest = smallest.min(gap);
        if gap <= promised {
            let (steps, passes) = (driver.oracle.step(), driver.oracle.data_passes());
            return Ok(Ok(format!(
                "no more than {promised:.0e} of the fall from the start to the optimum is left on {} after {steps} steps, \
                 {passes:.1} passes",
                case.name
            )));
        }
        if driver.ending.is_some() {
            break;
        }
    }
    let how = driver.ending.as_ref().map_or_else(|| "was still going on".to_owned(), ToString::to_string);
    Err(format!(
        "on {} {smallest:.1e} of the fall from the start to the optimum is left after {} steps; {promised:.0e} is promised \
         (it {how})",
        case.name,
        driver.oracle.step()
    ))
}

/// Steps in which a quantity that is no number must be noticed.
const NOTICED_WITHIN: usize = 60;

/// Where a problem's answers stop being numbers, it ends as diverged and names the quantity.
pub fn not_a_number(subject: &Subject<'_>) -> Finding {
    let variant = &subject.variants[0];
    let mut quantities = BTreeSet::new();
    for case in &subject.small {
        let healthy = Faulty::new(problem(case), u64::MAX);
        if let Some(capability) = healthy.unknown(subject.entry.needs) {
            return Err(format!(
                "the suite knows no faulty form of the {capability}: src/experiment/conformance/faulty.rs must learn it"
            ));
        }
        words(Driver::start(subject.entry, &variant.settings, &healthy, 1))?.steps(3);
        let answers = healthy.answers();
        let moments: BTreeSet<u64> = [0, answers / 2, answers.saturating_sub(1)].into();
        for good in moments {
            let faulty = Faulty::new(problem(case), good);
            let mut driver = words(Driver::start(subject.entry, &variant.settings, &faulty, 1))?;
            driver.steps(NOTICED_WITHIN);
            match driver.ending {
                Some(Ending::Diverged(quantity)) if !quantity.trim().is_empty() => {
                    quantities.insert(quantity);
                }
                ending => {
                    let how = ending.map_or_else(
                        || format!("went on for {NOTICED_WITHIN} steps as if nothing had happened"),
                        |ending| ending.to_string(),
                    );
                    return Err(format!(
                        "on {}, where all but the first {good} answers are NaN, it should end as diverged with the name of \
                         a quantity; it {how}",
                        case.name
                    ));
                }
            }
        }
    }
    let names: Vec<_> = quantities.iter().map(|name| format!("\"{name}\"")).collect();
    Ok(Ok(format!("ends as diverged and names {}", names.join(", "))))
}
