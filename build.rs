//! Tells the program which commit and compiler it was built from, for the record beside every measurement.

use std::process::Command;

fn answer(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // HEAD changes on a checkout, its log on every commit.
    for name in ["HEAD", "logs/HEAD"] {
        // A path that does not exist would have cargo run this every time.
        if let Some(path) =
            answer("git", &["rev-parse", "--git-path", name]).filter(|p| std::path::Path::new(p).exists())
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    if let Some(commit) = answer("git", &["rev-parse", "HEAD"]) {
        println!("cargo::rustc-env=PARSIMONY_COMMIT={commit}");
    }
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    if let Some(version) = answer(&compiler, &["--version"]) {
        println!("cargo::rustc-env=PARSIMONY_COMPILER={version}");
    }
}
