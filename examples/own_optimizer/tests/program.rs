//! The example does what its README says.

use std::path::Path;
use std::process::{Command, Output};

fn program(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_own_optimizer"));
    command.current_dir(folder).env("PARSIMONY_CACHE_DIR", folder.join("cache"));
    let output = command.args(arguments).output().expect("the program starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn an_optimizer_from_another_crate_has_the_whole_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let experiment = Path::new(env!("CARGO_MANIFEST_DIR")).join("compare.toml");
    let experiment = experiment.to_str().expect("UTF-8");
    let text = |arguments| String::from_utf8(program(folder.path(), arguments).stdout).expect("UTF-8");
    assert!(text(&["list", "optimizers"]).contains("barzilai-borwein"));
    assert!(text(&["info", "barzilai-borwein"]).contains("first_step"));
    let checked = text(&["check", "barzilai-borwein"]);
    assert!(checked.contains("ok    resume") && checked.contains(", 0 failed"), "{checked}");
    program(folder.path(), &["run", experiment]);
    let summary = text(&["summary", "runs/compare"]);
    assert!(summary.contains("barzilai-borwein"), "{summary}");
    let csv = text(&["summary", "runs/compare", "--format", "csv"]);
    let line = csv.lines().find(|line| line.contains("barzilai-borwein")).expect("a line of its own");
    assert!(line.contains("converged: gradient"), "{line}");
    assert!(text(&["report", "runs/compare"]).contains("accuracy-time.svg"));
}

#[test]
fn it_is_under_sixty_lines() {
    assert!(include_str!("../src/main.rs").lines().count() < 60);
}
